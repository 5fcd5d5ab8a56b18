"""Workers touch nobody else's runs: not those of other workflows, and not those of other versions of their own."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, replace
from pathlib import Path

from tests.stress.deadline import until
from tests.stress.evidence import Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.ledger import Ledger
from tests.stress.starter_process import asking
from tests.stress.target import Opening
from tests.waiting import eventually

OLD, NEW, OTHER = ("five", "shared", "1.0.0"), ("five", "shared", "2.0.0"), ("five", "other", "1.0.0")
WORKER = {"lease": "600ms", "poll_interval": "100ms", "concurrency": 10}


def test_workers_in_processes_keep_to_their_own(fleet: Fleet, runs: Runs, mongo_uri: str, database_name: str) -> None:
    """The worker of the old version dies at work; the others leave its runs as they are, expired leases and all."""
    opening = Opening(mongo_uri, database_name, str(fleet.ledger_path))
    serving = {"old": (OLD,), "new": (NEW,), "other": (OTHER,)}
    n = 0
    for name, flows in serving.items():
        numbers = [{"n": n + i, "pace": 0.2} for i in range(6)]
        how = asdict(replace(opening, flows=flows))
        fleet.spawn(role="starter", **asking(how, f"starting-{name}", numbers, workflow=flows[0][1]))
        n += len(numbers)
    until(lambda: runs.count() == n, within=20, what="the runs")
    begin = {name: asdict(replace(opening, flows=flows, worker=WORKER)) for name, flows in serving.items()}

    fleet.spawn("old", opening=begin["old"])
    until(lambda: len(gather(runs, fleet.ledger_path).all("enter", by="old")) >= 6, within=20, what="work")
    fleet.kill("old")
    orphans = runs.documents(route="shared@1.0.0")
    fleet.spawn("new", opening=begin["new"])
    fleet.spawn("other", opening=begin["other"])
    until(lambda: runs.count(status="done") == 12, within=20, what="the others' runs")
    assert runs.documents(route="shared@1.0.0") == orphans
    assert [run for run in orphans.values() if "lease" in run], "the dead worker held nothing"

    fleet.spawn("old-again", opening=begin["old"])
    runs.until_ended(n, within=30)
    evidence = gather(runs, fleet.ledger_path)
    for run_id, run in evidence.documents.items():
        who = {"shared@1.0.0": {"old", "old-again"}, "shared@2.0.0": {"new"}, "other@1.0.0": {"other"}}[run["route"]]
        assert {entry["by"] for entry in evidence.of(run_id, "enter")} <= who
        assert run["status"] == "done"


async def test_apps_in_one_loop_keep_to_their_own(
    runs: Runs, mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    opening = Opening(mongo_uri, database_name, str(tmp_path / "ledger.jsonl"), worker=WORKER)
    ledgers = {name: Ledger(opening.ledger, name) for name in ("starting", "new", "other")}
    value = {"n": 1, "pace": 0.01}
    async with replace(opening, flows=(OLD,), worker=None).app(ledgers["starting"]) as starting:
        old = [await starting.start("shared", value) for _ in range(5)]
    async with (
        replace(opening, flows=(NEW,)).app(ledgers["new"]) as new,
        replace(opening, flows=(OTHER,)).app(ledgers["other"]) as other,
    ):
        handles = [await app.start(name, value) for app, name in ((new, "shared"), (other, "other")) for _ in range(10)]
        await asyncio.gather(*(handle.result(20) for handle in handles))
        looked_enough = time.monotonic() + 1.0  # both look for due and for lost runs every 100 to 200 ms
        await eventually(lambda: time.monotonic() > looked_enough)
    evidence = gather(runs, tmp_path / "ledger.jsonl")
    for handle in old:
        run = evidence.documents[handle.id]
        assert (run["status"], run["rev"], run["attempt"]) == ("draft", 1, 0)
        assert not evidence.of(handle.id, "enter")
    for handle in handles:
        (by,) = {entry["by"] for entry in evidence.of(handle.id, "enter")}
        assert by == ("new" if evidence.documents[handle.id]["workflow"] == "shared" else "other")
