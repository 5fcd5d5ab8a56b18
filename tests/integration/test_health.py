"""How an app says that it stands: answered in time, raised never, and right again once all is well again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest

from streamline import Context, Health, Settings, Streamline, Tenancy, Worker, Workflow
from streamline.domain.health import HealthCheck, summed_up
from streamline.embedded import EmbeddedServer
from streamline.engine import vital_signs
from streamline.errors import InvalidPolicy
from tests.waiting import eventually

QUICK = Worker(lease="2s", poll_interval="200ms", drain="1s", cancel_grace="300ms")


def flow() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("flow")

    @wf.step
    async def work(ctx: Context[Any]) -> Any:
        return ctx.input

    return wf


@asynccontextmanager
async def frozen(server: EmbeddedServer) -> AsyncIterator[None]:
    """Stop the server's process for a while: it keeps its connections and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_who_has_no_time_does_not_answer_for_who_has(make_app: Any) -> None:
    async with make_app(flow(), worker=False) as app:
        for _ in range(5):
            _, patient = await asyncio.gather(app.health(timeout="1ms"), app.health(timeout="5s"))
            assert patient.checks["database"].status == "ok"


async def test_an_app_that_is_well_says_so_in_all_its_parts(make_app: Any) -> None:
    async with make_app(flow()) as app:
        health = await app.health()
        assert (health.ok, health.alive, health.status) == (True, True, "ok"), health
        assert set(health.checks) == {"database", "worker", "wakes", "clock", "loops"}
        assert {check.status for check in health.checks.values()} == {"ok"}
        await eventually(lambda: seconds_since(app, "look"))
        assert asdict(health)["checks"]["database"]["status"] == "ok"
        with pytest.raises(FrozenInstanceError):
            health.ok = False
        with pytest.raises(InvalidPolicy):
            await app.health(timeout="0s")


async def seconds_since(app: Streamline, what: str) -> bool:
    details = (await app.health()).checks["worker"].details
    return f"{what}_age_seconds" in details and details[f"{what}_age_seconds"] < 5


async def test_only_what_there_is_is_asked(make_app: Any) -> None:
    async with make_app(flow(), worker=False, settings=Settings(wake_channel=False)) as app:
        health = await app.health()
        assert health.ok
        assert set(health.checks) == {"database", "clock", "loops"}


async def test_whose_runs_they_are_does_not_matter(make_app: Any) -> None:
    async with make_app(flow(), tenancy=Tenancy(required=True)) as app:
        assert (await app.health()).ok
        assert (await app.tenant("acme").health()).ok
        assert (await app.all_tenants().health()).ok


async def test_an_app_that_is_not_open_is_down(make_app: Any) -> None:
    app = make_app(flow())
    assert (await app.health()).status == "down"
    async with app:
        assert (await app.health()).status == "ok"
    health = await app.health()
    assert (health.ok, health.alive, health.checks["app"].status) == (False, False, "down")


async def test_a_server_that_hangs_is_told_in_time_and_forgotten_when_it_is_back() -> None:
    server, wf = EmbeddedServer(), flow()
    async with server, Streamline(server.uri, workflows=[wf], worker=QUICK) as app:
        assert (await app.health()).status == "ok"
        async with frozen(server):
            for _ in range(2):
                began = time.monotonic()
                health, other = await asyncio.gather(app.health(timeout="500ms"), app.health(timeout="500ms"))
                assert time.monotonic() - began < 1.5
                assert (health.ok, health.status, other.status) == (False, "down", "down")
                assert health.checks["database"].status == "down"
                assert health.alive, "a restart of this process would not help"
        await eventually(lambda: is_well(app))
        assert await app.run(wf, "served again", timeout="20s") == "served again"
        pinging = [task for task in asyncio.all_tasks() if "ping" in str(task.get_coro())]
        assert not pinging, "probes pile up"


async def is_well(app: Streamline) -> bool:
    return (await app.health()).status == "ok"


async def test_a_server_that_is_gone_and_comes_back() -> None:
    server, wf = EmbeddedServer(), flow()
    async with server:
        app = Streamline(
            server.uri, workflows=[wf], worker=QUICK, settings=Settings(patience="300ms", call_timeout="500ms")
        )
        async with app:
            assert (await app.health()).ok
            os.kill(server.pid, signal.SIGSTOP)
            worker = await eventually(lambda: failing(app))
            assert worker.message.startswith("failing")
            os.kill(server.pid, signal.SIGCONT)
            await eventually(lambda: is_well(app))


async def failing(app: Streamline) -> HealthCheck | None:
    check = (await app.health(timeout="50ms")).checks["worker"]
    return check if check.status == "degraded" else None


async def test_a_channel_on_which_there_is_always_something_is_heard(make_app: Any) -> None:
    async with make_app(flow()) as app, make_app(flow()) as other:
        runtime = app._session.runtime
        runtime.wakes.heard_at = before = runtime.clock.monotonic() - 3600
        assert (await app.health()).checks["wakes"].status == "degraded"
        await eventually(lambda: other.start("flow", delay="1h"))
        await eventually(lambda: runtime.wakes.heard_at > before, within=3.0)  # sooner than an empty round is over
        assert (await app.health()).status == "ok"


async def test_a_loop_that_has_ended_or_hangs_is_told(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_app(flow()) as app:
        session: Any = app._session
        pulse = session.worker.pulses[0]
        with monkeypatch.context() as patch:
            patch.setattr(vital_signs, "_STUCK_SECONDS", -1.0)
            health = await app.health()
            assert (health.ok, health.alive, health.status) == (True, True, "degraded")
            assert "looking for runs" in health.checks["worker"].message
        with monkeypatch.context() as patch:
            patch.setattr(vital_signs, "_SILENT_ROUNDS", -1.0)
            patch.setattr(vital_signs, "_OLD_READINGS", -1.0)
            checks = (await app.health()).checks
            assert (checks["wakes"].status, checks["clock"].status) == ("degraded", "degraded")
        pulse.task.cancel()
        await asyncio.wait([pulse.task])
        health = await app.health()
        assert (health.ok, health.alive, health.status) == (False, False, "down")
        assert health.checks["worker"].message == "no longer at work: looking for runs"


@pytest.mark.parametrize(
    ("database", "worker", "expected"),
    [
        ("ok", "ok", (True, True, "ok")),
        ("ok", "degraded", (True, True, "degraded")),
        ("down", "degraded", (False, True, "down")),
        ("ok", "down", (False, False, "down")),
    ],
)
def test_parts_are_summed_up(database: Any, worker: Any, expected: tuple[bool, bool, str]) -> None:
    checks = {"database": HealthCheck(database, ""), "worker": HealthCheck(worker, "")}
    health: Health = summed_up(checks)
    assert (health.ok, health.alive, health.status) == expected
