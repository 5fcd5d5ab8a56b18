"""W4: waits of parked runs, answered by another process, until the handler goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.answerer_process import EVENT
from benchmarks.goals import at_most
from benchmarks.pacing import percentile
from benchmarks.processes import Assistant, assistant
from benchmarks.rows import Malfunction, Row
from benchmarks.stage import Stage
from benchmarks.waiting import until
from streamline import Context, Streamline, Workflow

_CONTINUED_SECONDS = 5.0


@dataclass(slots=True)
class Delays:
    """Milliseconds of one verb's answers.

    Args:
        called: From its call to the handler's going on.
        returned: From its return to that; zero where the handler was first.
        raw: Of a raw update just before.
    """

    called: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)


class Waiting:
    """A workflow of one step that waits in one way, and what this process has seen of its runs."""

    def __init__(self, verb: str, wait: Callable[[Context[Any], Callable[[str], None]], Awaitable[Any]]) -> None:
        self.verb = verb
        self.workflow: Workflow[Any, Any, Any] = Workflow(f"waits-for-{verb.replace('_', '-')}")
        self.continued: dict[str, asyncio.Future[int]] = {}
        self.tokens: dict[str, str] = {}

        @self.workflow.step
        async def only(ctx: Context[Any]) -> None:
            await wait(ctx, lambda token: self.tokens.update({ctx.run_id: token}))
            went_on = self.continued[ctx.run_id]
            if went_on.done():
                raise Malfunction(f"run {ctx.run_id} went on twice")
            went_on.set_result(time.monotonic_ns())

    async def parked(self, app: Streamline, stage: Stage, database: str) -> str:
        """Start a run, and return its id once it is parked."""
        run_id = f"{self.verb}-{len(self.continued)}"
        self.continued[run_id] = asyncio.get_running_loop().create_future()
        await app.start(self.workflow, run_id=run_id)
        query = {"_id": run_id, "status": "waiting", "lease": {"$exists": False}}

        async def is_parked() -> bool:
            return await stage.count(database, query) == 1

        await until(is_parked, "the run is parked", within=_CONTINUED_SECONDS)
        return run_id

    async def answered(self, run_id: str, answerer: Assistant, delays: Delays) -> None:
        """Let the other process answer, and note how long the handler took to go on."""
        told = await answerer.ask(f"{self.verb} {self.tokens.get(run_id, run_id)}")
        try:
            async with asyncio.timeout(_CONTINUED_SECONDS):
                went_on = await self.continued[run_id]
        except TimeoutError:
            raise Malfunction(f"{self.verb}: run {run_id} did not go on in {_CONTINUED_SECONDS:g} s") from None
        delays.called.append((went_on - told["called"]) / 1e6)
        delays.returned.append(max(0, went_on - told["returned"]) / 1e6)
        delays.raw.append(told["raw"] * 1e3)


def waitings() -> list[Waiting]:
    """Return one workflow per verb."""

    async def for_payload(ctx: Context[Any], _: Callable[[str], None]) -> None:
        await ctx.wait("an answer")

    async def for_hook(ctx: Context[Any], tell: Callable[[str], None]) -> None:
        hook = await ctx.create_hook("answer")
        tell(hook.token)
        await hook.wait()

    async def for_event(ctx: Context[Any], _: Callable[[str], None]) -> None:
        await ctx.wait_for(EVENT)

    return [Waiting("resume", for_payload), Waiting("resume_hook", for_hook), Waiting("send_event", for_event)]


async def measure(stage: Stage) -> list[Row]:
    """Measure the verbs in turns; both processes read the machine's one clock."""
    kinds = waitings()
    delays = {kind.verb: Delays() for kind in kinds}
    async with (
        stage.database("w4") as database,
        stage.app(database, *(kind.workflow for kind in kinds)) as app,
        assistant("answerer_process", uri=stage.uri, database=database) as answerer,
    ):
        await answerer.hear()
        for kind in kinds:
            await kind.answered(await kind.parked(app, stage, database), answerer, Delays())  # to warm up
        for _ in range(stage.sizes.answers * stage.rounds):
            for kind in kinds:
                await kind.answered(await kind.parked(app, stage, database), answerer, delays[kind.verb])
    return [row for verb, found in delays.items() for row in _rows(verb, found)]


def _rows(verb: str, delays: Delays) -> list[Row]:
    p50, p99 = percentile(delays.called, 0.5), percentile(delays.called, 0.99)
    raw_p50, returned_p50 = percentile(delays.raw, 0.5), percentile(delays.returned, 0.5)
    shown = f"p50 {p50:.2f} ms ({returned_p50:.2f} of it after the return), p99 {p99:.2f} ms; raw p50 {raw_p50:.2f} ms"
    detail = {"returned_p50": returned_p50, "returned_p99": percentile(delays.returned, 0.99)}
    return [
        Row("W4", f"{verb} to continuation, p50", shown, p50, at_most(5, 20, unit="ms"), "ms", detail=detail),
        Row("W4", f"{verb} to continuation, p99", shown, p99, at_most(15, 100, unit="ms"), unit="ms"),
        Row("W4", f"{verb}: p50 / p50 of a raw update", shown, p50 / raw_p50, at_most(5.0)),
    ]
