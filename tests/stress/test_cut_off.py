"""A worker that cannot reach the database stops its handlers before its lease runs out: two never work on one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymongo.errors import AutoReconnect

from streamline import Streamline
from tests.stress.evidence import Runs, gather
from tests.stress.ledger import Ledger
from tests.stress.target import Opening
from tests.waiting import eventually

WORKER = {"lease": "1600ms", "poll_interval": "100ms", "concurrency": 500}
FLOWS = (("holding", "holding", "1.0.0"),)


def cut_off(app: Streamline) -> None:
    """Let every statement of this app fail from now on."""

    async def unreachable(*_: Any) -> Any:
        raise AutoReconnect("no route to host")

    driver = app._open_session.runtime.store.driver
    for method in ("command", "find", "aggregate"):
        setattr(driver, method, unreachable)


async def test_a_worker_that_is_cut_off_stops_in_time(
    runs: Runs, mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    told = {name: Ledger(tmp_path / "ledger.jsonl", name) for name in ("first", "second")}
    settings = {"patience": "500ms", "wake_channel": False}
    opening = Opening(mongo_uri, database_name, str(tmp_path / "ledger.jsonl"), FLOWS, WORKER, settings)
    forever = {"turns": 6000, "turn": 0.05, "again": 0.0, "block": None}
    async with opening.app(told["first"]) as first, opening.app(told["second"]) as second:
        handles = [await first.start("holding", forever) for _ in range(5)]
        await eventually(lambda: len(gather(runs, tmp_path / "ledger.jsonl").all("enter", by="first")) == 5)
        cut_off(first)
        for handle in handles:
            await second.handle(handle.id).wait(20)
    evidence = gather(runs, tmp_path / "ledger.jsonl")
    for handle in handles:
        (stopped,) = evidence.of(handle.id, "cancelled", by="first")
        begun = evidence.of(handle.id, "enter", by="second")
        assert stopped["at"] < begun[0]["at"], "two handlers worked on one run"
        assert evidence.documents[handle.id]["output"]["by"] == "second"
