"""A process dies at every single write on the way through the gates: before it, and when it is applied but not known.

In one process, an app dies when its driver falls silent for ever; another one, that comes later, finds what it has
left. Each crash point has a workflow of its own, so that all of them can share a database. Where nothing dies but an
answer is lost, the same app goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from streamline import Concurrency, Debounce, RunHandle, Settings, Streamline, Throttle, Worker, Workflow
from tests.integration.harm import MOMENTS, Harm
from tests.integration.meters import Meter, at_rest, most_in_a_window, working
from tests.waiting import eventually

WINDOW = timedelta(milliseconds=400)
DIES = Worker(lease="600ms", poll_interval="100ms", drain=0, cancel_grace="100ms")
STAYS = Worker(lease="60s", poll_interval="100ms")
RECOVERS = Worker(lease="5s", poll_interval="100ms")


@dataclass
class Story:
    """What an app does before it dies, as often as there are crash points.

    Args:
        gates: The workflow's gates.
        play: What the app does.
        runs: How many runs there are at the most afterwards.
        works: Whether the dying app has a worker.
    """

    gates: dict[str, Any]
    play: Callable[[Streamline, Workflow[Any, Any, Any]], Awaitable[Any]]
    runs: int
    works: bool = True


async def one(app: Streamline, wf: Workflow[Any, Any, Any]) -> Any:
    return await _settled(await app.start(wf, 1, idempotency_key="k"))


async def two(app: Streamline, wf: Workflow[Any, Any, Any]) -> Any:
    handles = [await app.start(wf, i) for i in range(2)]
    for handle in handles:
        await _settled(handle)


async def bulk(app: Streamline, wf: Workflow[Any, Any, Any]) -> Any:
    for handle in await app.start_many(wf, [0, 1, 2]):
        await _settled(handle)


async def bumped(app: Streamline, wf: Workflow[Any, Any, Any]) -> Any:
    await app.start(wf, 0)
    await _settled(await app.start(wf, 1))


async def kept(app: Streamline, wf: Workflow[Any, Any, Any]) -> Any:
    await _settled(await app.start(wf, 1, idempotency_key="k", idempotency="forever"))


async def freed(app: Streamline, wf: Workflow[Any, Any, Any]) -> Any:
    """End a run by hand, so that the next is called up: here nobody is who could take it."""
    first = await app.start(wf, 0, delay="1h")
    await app.start(wf, 1)
    await app.start(wf, 2)
    await first.cancel()


async def _settled(handle: RunHandle[Any]) -> None:
    await handle.wait("10s")


LIMIT, THROTTLE = Concurrency(1), Throttle(1, WINDOW)
STORIES = {
    "limit": Story({"concurrency": LIMIT}, two, 2),
    "throttle": Story({"throttle": THROTTLE}, two, 2),
    "debounce": Story({"debounce": Debounce("1s")}, bumped, 1),
    "limit and throttle": Story({"concurrency": LIMIT, "throttle": THROTTLE}, two, 2),
    "all": Story({"concurrency": LIMIT, "throttle": THROTTLE, "debounce": Debounce("50ms")}, one, 1),
    "bulk": Story({"concurrency": Concurrency(2), "throttle": Throttle(2, WINDOW)}, bulk, 3),
    "kept key": Story({"concurrency": LIMIT, "throttle": THROTTLE}, kept, 1),
    "starting only": Story({"concurrency": LIMIT, "throttle": THROTTLE}, freed, 3, works=False),
}


async def play(make_app: Any, story: Story, name: str, at: int, moment: str) -> list[str]:
    """Let an app play a story and die on the way; return the writes that it has sent."""
    meter = METERS.setdefault(name, Meter(hold=False))
    wf = working(meter, name, **story.gates)
    patience = "10s" if moment == "lost" else "200ms"
    # Where nothing dies, nothing may cost a run its lease: not even a busy machine.
    works = STAYS if moment == "lost" else DIES
    app = make_app(wf, worker=works if story.works else False, settings=Settings(patience=patience))
    await app.__aenter__()
    try:
        harm = Harm(app, at, moment)
        playing = asyncio.ensure_future(story.play(app, wf))
        dying = asyncio.ensure_future(harm.dead.wait())
        await asyncio.wait((playing, dying), timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert playing.done() or dying.done(), f"{name} hangs"
        dying.cancel()
        if not harm.dead.is_set():
            await playing
        playing.cancel()
        return list(harm.writes)
    finally:
        await app.__aexit__(None, None, None)


METERS: dict[str, Meter] = {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", STORIES)
async def test_a_process_dies_at_every_write_to_the_gates(make_app: Any, runs: Any, kind: str) -> None:
    story = STORIES[kind]
    METERS.clear()
    points = {"sound-0": (0, "before")}
    writes = await play(make_app, story, "sound-0", 0, "before")
    assert writes
    points |= {f"{moment}-{at}": (at, moment) for at in range(1, len(writes) + 1) for moment in MOMENTS}
    todo = [(name, *point) for name, point in points.items() if name != "sound-0"]
    for begin in range(0, len(todo), 8):
        await asyncio.gather(*(play(make_app, story, *point) for point in todo[begin : begin + 8]))
    await runs.update_many({"status": "draft", "due_at": {"$exists": True}}, [{"$set": {"due_at": "$created_at"}}])
    flows = [working(METERS[name], name, **story.gates) for name in points]
    async with make_app(*flows, worker=RECOVERS) as app:
        # What is there is brought to an end, and the same start again finds the way clear.
        again = await asyncio.gather(*(app.start(wf, "again") for wf in flows))
        for handle in again:
            assert (await handle.wait("20s")).status == "done"
        await eventually(lambda: all_ended(runs))
    await at_rest(runs)
    for name, meter in METERS.items():
        stored = [run async for run in runs.find({"workflow": name})]
        assert len(stored) <= story.runs + 1, name
        assert {run["status"] for run in stored} <= {"done", "cancelled"}, name
        limit = story.gates.get("concurrency")
        # The attempt of a dead process is only seen to be over when its lease is.
        assert limit is None or meter.most[""] <= limit.limit, name
        throttle = story.gates.get("throttle")
        begun = [run["started_at"] for run in stored if "started_at" in run]
        assert throttle is None or most_in_a_window(begun, WINDOW) <= throttle.limit, name
        # No run began twice but where its process died under it.
        entries = [each for each in meter.order if each != "again"]
        assert len(entries) <= len(stored) - 1 + sum(run["recovery_count"] for run in stored), name
        if name.startswith("lost"):
            assert sum(run["recovery_count"] for run in stored) == 0, name
            assert len(stored) == story.runs + 1, name


async def all_ended(runs: Any) -> bool:
    return not await runs.count_documents({"status": {"$nin": ["done", "cancelled"]}})
