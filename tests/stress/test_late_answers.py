"""The database answers late, or refuses for a moment: no handler begins under a lease that is over, no verb fails."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from streamline import Streamline
from streamline.store.driver import Driver
from tests.stress import checker
from tests.stress.evidence import Runs, gather
from tests.stress.ledger import Ledger
from tests.stress.saboteur import kind_of
from tests.stress.target import Opening, tell_events

LEASE = 0.8
# Room for more than a claim in progress may have reserved: a start always finds a place, and is born claimed.
WORKER = {"lease": f"{LEASE}s", "poll_interval": "100ms", "concurrency": 500}
STEPPED_DOWN = {"ok": 1.0, "n": 0, "nModified": 0, "writeErrors": [{"index": 0, "code": 189, "errmsg": "Not primary"}]}


@pytest.fixture
def opening(mongo_uri: str, database_name: str, tmp_path: Path) -> Opening:
    return Opening(mongo_uri, database_name, str(tmp_path / "ledger.jsonl"), worker=WORKER)


def ledger(opening: Opening, by: str) -> Ledger:
    return Ledger(opening.ledger, by)


def driver_of(app: Streamline) -> Driver:
    return app._open_session.runtime.store.driver


def delay_once(app: Streamline, method: str, wanted: Any, seconds: float) -> asyncio.Event:
    """Let the answer to one call of a driver's method arrive so much later; return what says that it has arrived."""
    driver, arrived = driver_of(app), asyncio.Event()
    send = getattr(driver, method)

    async def slow(*asked: Any) -> Any:
        answer = await send(*asked)
        if wanted(*asked):
            setattr(driver, method, send)
            await asyncio.sleep(seconds)
            arrived.set()
        return answer

    setattr(driver, method, slow)
    return arrived


async def overtaken(opening: Opening, runs: Runs, method: str, wanted: Any, *, queued: bool) -> None:
    """Let the answer to a claim, or to an insert as claimed, come when the lease is over and the run recovered."""
    value = {"n": 1, "pace": 0.01}
    told = ledger(opening, "app")
    async with opening.app(told) as app:
        tell_events(app, told)
        arrived = delay_once(app, method, wanted, 3 * LEASE)
        if queued:
            async with replace(opening, worker=None).app(ledger(opening, "starting")) as elsewhere:
                starting = asyncio.ensure_future(elsewhere.start("five", value))
                await starting
        else:
            starting = asyncio.ensure_future(app.start("five", value))
        await asyncio.wait_for(arrived.wait(), 20)
        run_id = (await starting).id
        await app.handle(run_id).wait(20)
    attempts = {entry["attempt"] for entry in gather(runs, Path(opening.ledger)).of(run_id, "enter", step="first")}
    assert attempts == {2}, "a handler began though its lease had run out before"


async def test_a_claim_that_is_answered_too_late_is_left_alone(opening: Opening, runs: Runs) -> None:
    await overtaken(opening, runs, "find", lambda _, statement: statement.name == "find_claimed", queued=True)


async def test_a_start_that_is_answered_too_late_is_left_alone(opening: Opening, runs: Runs) -> None:
    await overtaken(
        opening, runs, "command", lambda command: kind_of(command, "streamline.runs") == "insert", queued=False
    )


async def test_a_member_that_steps_down_in_the_middle_of_a_batch_fails_nothing(opening: Opening, runs: Runs) -> None:
    """The server may answer a write in a batch with error 189 alone: it did not happen, and may be sent again."""
    told = ledger(opening, "app")
    opening = replace(opening, worker={"lease": "20s", "poll_interval": "100ms"})
    async with opening.app(told) as app:
        tell_events(app, told)
        driver, refused = driver_of(app), 0
        send = driver.command

        async def command(sent: Mapping[str, Any]) -> dict[str, Any]:
            nonlocal refused
            if kind_of(sent, driver.runs) and (refused := refused + 1) % 2:
                return dict(STEPPED_DOWN)
            return await send(sent)

        driver.command = command  # type: ignore[method-assign]
        value = {"n": 1, "pace": 0.01}
        told.write("asking", value=value)
        handle = await app.start("five", value)
        told.write("started", run=handle.id, value=value)
        await handle.wait(20)
        parked = await app.start("five", value, delay="1h")
        await app.pause(parked.id)
        await app.cancel(parked.id)
        assert await parked.status() == "cancelled"
    assert refused > 10
    evidence = gather(runs, Path(opening.ledger))
    del evidence.documents[parked.id]
    assert not checker.violations(evidence)


async def test_an_app_opens_though_the_connection_breaks_meanwhile(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other call of each kind that opening makes is broken off."""
    asked: Counter[str] = Counter()

    def breaking(name: str, send: Any) -> Any:
        async def call(driver: Driver, *arguments: Any) -> Any:
            asked[name] += 1
            if asked[name] % 2:
                raise AutoReconnect("connection closed")
            return await send(driver, *arguments)

        return call

    for name, send in list(vars(Driver).items()):
        if inspect.iscoroutinefunction(send) and name != "close":
            monkeypatch.setattr(Driver, name, breaking(name, send))
    async with replace(opening, worker=None).app(ledger(opening, "app")) as app:
        assert await app.count_runs() == {}
    assert asked.total() >= 6
