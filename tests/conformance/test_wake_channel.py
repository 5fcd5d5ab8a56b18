"""The wake channel: hints from one process to the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from streamline.clock import SystemClock
from streamline.store import Wake, WakeChannel
from streamline.store.driver import Driver
from tests.conformance.documents import NOW
from tests.waiting import eventually

SIZE = 64 * 1024


def channel(wire: Driver, sender: str) -> WakeChannel:
    return WakeChannel(wire, SystemClock(), sender=sender, size=SIZE)


@contextlib.asynccontextmanager
async def listening(wire: Driver, sender: str) -> AsyncIterator[list[Wake]]:
    """The wakes that one process hears, once its cursor stands."""
    heard: list[Wake] = []
    stands, probe = asyncio.Event(), channel(wire, "probe")

    async def listen() -> None:
        while True:
            async for wake in channel(wire, sender).listen():
                if wake.ended == ("probe",):
                    stands.set()
                else:
                    heard.append(wake)
            await asyncio.sleep(0.01)

    async def probed() -> bool:
        probe.ended("probe")
        await probe.close()
        return stands.is_set()

    task = asyncio.ensure_future(listen())
    try:
        await eventually(probed, every=0.05)
        yield heard
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def ready(wire: Driver) -> Driver:
    await channel(wire, "first").ensure()
    return wire


async def test_the_channel_is_a_small_capped_collection(ready: Driver, database: Any) -> None:
    options = await database["streamline.wakes"].options()
    assert options["capped"]
    assert options["size"] <= 2 * SIZE
    await asyncio.gather(*(channel(ready, f"p{i}").ensure() for i in range(5)))


async def test_others_hear_what_a_process_says(ready: Driver) -> None:
    speaker = channel(ready, "speaker")
    async with listening(ready, "listener") as heard:
        speaker.due("flow@1.0.0", NOW)
        await speaker.close()
        speaker.ended("r1")
        await speaker.close()
        speaker.fenced("r2", "lease")
        await eventually(lambda: len(heard) == 3)
    assert heard == [Wake({"flow@1.0.0": NOW}), Wake({}, ended=("r1",)), Wake({}, fenced=(("r2", "lease"),))]


async def test_a_process_does_not_hear_itself(ready: Driver) -> None:
    speaker, other = channel(ready, "me"), channel(ready, "other")
    async with listening(ready, "me") as heard:
        speaker.ended("mine")
        await speaker.close()
        other.ended("theirs")
        await eventually(lambda: heard)
    assert heard == [Wake({}, ended=("theirs",))]


async def test_what_is_said_together_is_sent_together_and_the_earliest_time_counts(
    ready: Driver, database: Any
) -> None:
    speaker = channel(ready, "speaker")
    async with listening(ready, "listener") as heard:
        before = await database["streamline.wakes"].count_documents({"by": "speaker"})
        for i in range(50):
            speaker.due("flow@1.0.0", NOW + timedelta(seconds=abs(i - 20)))
            speaker.due("other@1.0.0", NOW)
            speaker.ended(f"r{i}")
        await eventually(lambda: sum(len(wake.ended) for wake in heard) == 50)
        sent = await database["streamline.wakes"].count_documents({"by": "speaker"}) - before
    assert sent <= 2
    assert min(wake.due["flow@1.0.0"] for wake in heard if wake.due) == NOW


async def test_very_many_ids_are_spread_over_several_wakes(ready: Driver) -> None:
    speaker = channel(ready, "speaker")
    async with listening(ready, "listener") as heard:
        for i in range(1200):
            speaker.ended(f"r{i}")
        await eventually(lambda: sum(len(wake.ended) for wake in heard) == 1200)
    assert {run_id for wake in heard for run_id in wake.ended} == {f"r{i}" for i in range(1200)}
    assert len(heard) >= 3


async def test_a_wake_that_is_lost_disturbs_nobody(ready: Driver) -> None:
    from pymongo.errors import AutoReconnect

    speaker = channel(ready, "speaker")
    real, failures = ready.command, [AutoReconnect("closed")]

    async def shaky(command: Any) -> Any:
        if "insert" in command and failures:
            raise failures.pop()
        return await real(command)

    async with listening(ready, "listener") as heard:
        ready.command = shaky  # type: ignore[method-assign]
        speaker.ended("lost")
        await speaker.close()
        speaker.ended("heard")
        await eventually(lambda: heard)
    assert heard == [Wake({}, ended=("heard",))]


async def test_a_full_channel_goes_on(ready: Driver) -> None:
    speaker = channel(ready, "speaker")
    async with listening(ready, "listener") as heard:
        for i in range(300):
            speaker.ended("r" * 200 + str(i))
            await speaker.close()
        await eventually(lambda: any("r" * 200 + "299" in wake.ended for wake in heard))
