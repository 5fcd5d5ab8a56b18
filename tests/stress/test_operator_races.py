"""An operator comes in at every single write of a run, also while the write's own answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from streamline import Streamline
from streamline.errors import AlreadyFinished, IllegalTransition, RunNotFound
from tests.stress import checker
from tests.stress.evidence import Evidence, Runs, gather
from tests.stress.ledger import Ledger
from tests.stress.saboteur import Saboteur
from tests.stress.target import Opening, tell_events
from tests.waiting import eventually

WRITES = 9
PATIENT = {"lease": "4s", "poll_interval": "100ms", "concurrency": 500, "max_recoveries": 0}

Verb = Callable[[Streamline, str], Awaitable[None]]


async def cancel(operator: Streamline, run_id: str) -> None:
    await operator.cancel(run_id, reason="enough")


async def pause(operator: Streamline, run_id: str) -> None:
    await operator.pause(run_id)


async def cancel_and_retry(operator: Streamline, run_id: str) -> None:
    await operator.cancel(run_id)
    await operator.retry(run_id)


async def pause_and_unpause(operator: Streamline, run_id: str) -> None:
    await operator.pause(run_id)
    await operator.unpause(run_id)


class Meddled:
    """One run at one of whose writes an operator, in a process of his own, comes in."""

    def __init__(self, opening: Opening, told: Ledger, at: int, verb: Verb, *, doubt: bool) -> None:
        self.name = f"{verb.__name__}-{at}"
        self.value = {"n": at, "pace": 0.2}
        self.opening = replace(opening, flows=(("five", self.name, "1.0.0"),))
        self.told, self.at, self.verb, self.doubt = told, at, verb, doubt
        self.came = False

    async def live(self, then: Callable[[Streamline, str], Awaitable[Any]]) -> None:
        """Start the run, let the operator come in, and do `then`."""
        async with replace(self.opening, worker=None).app(self.told) as operator, self.opening.app(self.told) as app:
            tell_events(app, self.told)

            async def come_in() -> None:
                try:
                    await self.verb(operator, self.name)
                except (RunNotFound, IllegalTransition, AlreadyFinished):  # not there yet, or over already
                    return
                self.came = True
                self.told.write("operated", run=self.name)
                if self.doubt:
                    raise AutoReconnect("connection closed")

            Saboteur(app, "applied" if self.doubt else "before", self.at, come_in)
            self.told.write("asking", value=self.value)
            handle = await app.start(self.name, self.value, run_id=self.name)
            self.told.write("started", run=handle.id, value=self.value)
            await then(operator, self.name)


async def meddle(
    opening: Opening, told: Ledger, verb: Verb, then: Callable[[Streamline, str], Awaitable[Any]], *, doubt: bool
) -> list[Meddled]:
    """Let an operator come in at each write of a run of its own."""
    first = 2 if doubt else 1  # a start in doubt is the matter of test_ambiguous_writes.py
    meddled = [Meddled(opening, told, at, verb, doubt=doubt) for at in range(first, WRITES + 1)]
    await asyncio.gather(*(each.live(then) for each in meddled))
    assert sum(each.came for each in meddled) >= WRITES - 2
    return meddled


@pytest.fixture
def told(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", "app")


@pytest.fixture
def opening(mongo_uri: str, database_name: str, driver: str, told: Ledger) -> Opening:
    # Each of many apps in one process that listens for wakes would take one of Motor's few threads for itself.
    return Opening(
        mongo_uri, database_name, str(told.path), worker=PATIENT, settings={"wake_channel": driver == "pymongo"}
    )


async def until_ended(operator: Streamline, run_id: str) -> None:
    await operator.handle(run_id).wait(30)


async def until_done(operator: Streamline, run_id: str) -> None:
    async def done() -> bool:
        return (await operator.get(run_id)).status == "done"

    await eventually(done, every=0.02)


async def until_held_then_unpause(operator: Streamline, run_id: str) -> None:
    """Wait until the run is held, or over; let it go on, and wait for its end."""

    async def held() -> Any:
        run = await operator.get(run_id)
        return run if run.ended or (run.paused and run.worker is None) else None

    if not (await eventually(held)).ended:
        await operator.unpause(run_id)
    await until_ended(operator, run_id)


def once(evidence: Evidence) -> None:
    """Fail unless every step was executed by one attempt, and nothing was recovered."""
    assert not checker.violations(evidence)
    for run_id, run in evidence.documents.items():
        assert {step["attempt"] for step in run["steps"]} == {1}, run_id
        assert run["recovery_count"] == 0, run_id


DOUBT = pytest.mark.parametrize("doubt", [False, True], ids=["answered", "in-doubt"])


@DOUBT
async def test_a_pause_at_any_write_repeats_nothing(runs: Runs, opening: Opening, told: Ledger, *, doubt: bool) -> None:
    await meddle(opening, told, pause, until_held_then_unpause, doubt=doubt)
    once(gather(runs, told.path))


@DOUBT
async def test_a_short_pause_at_any_write_repeats_nothing(
    runs: Runs, opening: Opening, told: Ledger, *, doubt: bool
) -> None:
    await meddle(opening, told, pause_and_unpause, until_ended, doubt=doubt)
    once(gather(runs, told.path))


@DOUBT
async def test_nothing_is_written_after_a_cancel_at_any_write(
    runs: Runs, opening: Opening, told: Ledger, *, doubt: bool
) -> None:
    meddled = await meddle(opening, told, cancel, until_ended, doubt=doubt)
    ended = gather(runs, told.path)
    for each in meddled:
        run = ended.documents[each.name]
        assert run["status"] == ("cancelled" if each.came and run.get("cancel") else "done"), each.name
        assert run["ended_at"] is not None
        assert not {"live", "lease", "due_at", "active_key"} & set(run), each.name
        for told_of in ended.of(each.name, "operated"):
            late = [entry for entry in ended.of(each.name, "acknowledged") if entry["at"] > told_of["at"]]
            assert run["status"] == "done" or not late, each.name
    await asyncio.sleep(0.3)
    assert gather(runs, told.path).documents == ended.documents


@DOUBT
async def test_a_cancel_and_a_retry_at_any_write_end_right(
    runs: Runs, opening: Opening, told: Ledger, *, doubt: bool
) -> None:
    await meddle(opening, told, cancel_and_retry, until_done, doubt=doubt)
    evidence = gather(runs, told.path)
    rules = (
        checker.acknowledged_starts_exist,
        checker.only_asked_for,
        checker.ended_tidily,
        checker.outputs_are_right,
        checker.outputs_come_from_their_attempt,
        checker.committed_once,
        checker.outputs_never_change,
    )
    assert not [said for rule in rules for said in rule(evidence)]


async def test_a_retry_in_doubt_is_recognised_though_the_run_went_on(
    opening: Opening, told: Ledger, runs: Runs
) -> None:
    opening = replace(opening, flows=(("five", "retried", "1.0.0"),))
    async with replace(opening, worker=None).app(told) as operator, opening.app(told) as app:
        handle = await operator.start("retried", {"n": 1, "pace": 0.0}, delay="1h")
        await operator.cancel(handle.id)

        async def go_on_and_lose() -> None:
            await app.handle(handle.id).wait(30)
            raise AutoReconnect("connection closed")

        Saboteur(operator, "applied", 1, go_on_and_lose)
        await operator.retry(handle.id)
        assert (await operator.get(handle.id)).status == "done"
