"""A write's answer is lost, or the write is: every one of a run's, one at a time. Nothing is done twice for mere doubt.

About half of the writes that end in a connection error have taken effect, and nobody can tell which. So the engine
sends each again as it is, and asks the run whose write it shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from streamline import Streamline
from tests.stress import checker
from tests.stress.evidence import Runs, gather
from tests.stress.ledger import Ledger
from tests.stress.saboteur import Saboteur
from tests.stress.target import Opening, tell_events

WRITES = 9  # of a run of five steps with a durable call and a durable sleep, claimed at birth or from the queue
PATIENT = {"lease": "20s", "poll_interval": "100ms", "concurrency": 500}


@pytest.fixture
def told(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", "app")


@pytest.fixture
def opening(mongo_uri: str, database_name: str, driver: str, told: Ledger) -> Opening:
    # Each of many apps in one process that listens for wakes would take one of Motor's few threads for itself.
    return Opening(
        mongo_uri, database_name, str(told.path), worker=PATIENT, settings={"wake_channel": driver == "pymongo"}
    )


def lose_connection() -> None:
    raise AutoReconnect("connection closed")


class Doubted:
    """One run with one write in doubt, by an app of its own that serves a workflow of its own."""

    def __init__(self, opening: Opening, told: Ledger, number: int, scenario: str, moment: str, at: int) -> None:
        self.name = f"{scenario}-{moment}-{at}"
        self.value = {"n": number, "pace": 0.005}
        self.opening = replace(opening, flows=(("five", self.name, "1.0.0"),))
        self.told, self.scenario, self.moment, self.at = told, scenario, moment, at

    async def live(self, harm: Callable[[], Awaitable[None] | None] = lose_connection) -> Saboteur:
        """Start the run, do the harm, and wait for the run's end."""
        if self.scenario == "queued":
            async with replace(self.opening, worker=None).app(self.told) as elsewhere:
                await self._start(elsewhere)
        async with self.opening.app(self.told) as app:
            tell_events(app, self.told)
            saboteur = Saboteur(app, self.moment, self.at, harm)
            if self.scenario == "claimed":
                await self._start(app)
            await app.handle(self.name).wait(30)
        return saboteur

    async def _start(self, app: Streamline) -> None:
        self.told.write("asking", value=self.value)
        handle = await app.start(self.name, self.value, run_id=self.name)
        assert handle.created
        self.told.write("started", run=handle.id, value=self.value)


@pytest.mark.parametrize("scenario", ["claimed", "queued"])
@pytest.mark.parametrize("moment", ["before", "applied"])
async def test_doubt_repeats_nothing(runs: Runs, opening: Opening, told: Ledger, scenario: str, moment: str) -> None:
    doubted = [Doubted(opening, told, at, scenario, moment, at) for at in range(1, WRITES + 1)]
    saboteurs = await asyncio.gather(*(each.live() for each in doubted))
    assert all(saboteur.done for saboteur in saboteurs)

    evidence = gather(runs, told.path)
    assert not checker.violations(evidence)
    assert {run["recovery_count"] for run in evidence.documents.values()} == {0}
    for run_id, run in evidence.documents.items():
        assert {step["attempt"] for step in run["steps"]} == {1}, run_id
        assert len(evidence.of(run_id, "acknowledged", type="step.done")) == 5, run_id
        assert len(evidence.of(run_id, "call")) == 1, run_id


async def test_doubt_after_doubt_repeats_nothing(runs: Runs, opening: Opening, told: Ledger) -> None:
    """Every write of a run takes effect, and its first three answers are lost."""
    doubted = Doubted(opening, told, 1, "claimed", "applied", 0)
    async with doubted.opening.app(told) as app:
        tell_events(app, told)
        driver = app._open_session.runtime.store.driver
        send, lost = driver.command, 0

        async def command(sent: Any) -> Any:
            nonlocal lost
            answer = await send(sent)
            if "writeConcern" in sent and (lost := lost + 1) % 4:
                lose_connection()
            return answer

        driver.command = command  # type: ignore[method-assign]
        await doubted._start(app)
        await app.handle(doubted.name).wait(30)
    evidence = gather(runs, told.path)
    assert not checker.violations(evidence)
    assert evidence.documents[doubted.name]["recovery_count"] == 0


async def work_to_the_end(working: Streamline, run_id: str) -> None:
    await working.handle(run_id).wait(30)


async def pause(working: Streamline, run_id: str) -> None:
    await working.pause(run_id)


async def start_in_doubt(
    opening: Opening, told: Ledger, meanwhile: Callable[[Streamline, str], Awaitable[None]], **options: Any
) -> None:
    """Start a run whose insert is applied, but whose answer is lost, and only after something was done to the run."""
    name, value = "doubted", {"n": 7, "pace": 0.0}
    opening = replace(opening, flows=(("five", name, "1.0.0"),))
    elsewhere = opening if meanwhile is work_to_the_end else replace(opening, worker=None)
    async with replace(opening, worker=None).app(told) as starting, elsewhere.app(told) as working:

        async def meddle_and_lose() -> None:
            await meanwhile(working, (await working.runs()).items[0].id)
            lose_connection()

        Saboteur(starting, "applied", 1, meddle_and_lose)
        handle = await starting.start(name, value, **options)
        assert handle.created
        assert [run.id for run in (await working.runs()).items] == [handle.id]


@pytest.mark.parametrize("meanwhile", [work_to_the_end, pause])
@pytest.mark.parametrize("options", [{}, {"idempotency_key": "order-7"}, {"run_id": "chosen"}], ids=["", "key", "id"])
async def test_a_start_in_doubt_is_recognised_though_the_run_went_on(
    runs: Runs, opening: Opening, told: Ledger, meanwhile: Any, options: dict[str, Any]
) -> None:
    await start_in_doubt(opening, told, meanwhile, **options)
    assert runs.count() == 1
