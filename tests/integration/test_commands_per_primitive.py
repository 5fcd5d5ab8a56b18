"""What each primitive costs a run in document writes and commands, counted in the driver. The figures may only fall.

Of the runs counted here, each has one step that uses the primitive once, unless its line says otherwise. Such a run
costs two writes without: its insert, and the end of its step. The table of docs/performance.md shows the same figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo.read_concern import ReadConcern

from streamline import Context, Continue, Done, NonRetriableError, RunHandle, Streamline, Worker, Workflow
from streamline.domain.statuses import TERMINAL
from tests.integration.counted_commands import Commands, counted_app
from tests.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"

ITEMS, BRANCHES, TURNS, LOOKS, CHILDREN, SAID, JUMPS, OPERATIONS = 100, 4, 10, 3, 20, 50, 2, 4
MOMENT = 0.02

# Its loops look at the database once when they begin; what it is woken for is due before they would look again.
STILL = Worker(concurrency=256, lease="1h", poll_interval="1h")

Handler = Callable[[Context[Any, Any]], Awaitable[Any]]
Answering = Callable[[Streamline, str], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """A workflow that uses a primitive, and the most that one run of it may cost, its children's included.

    Args:
        workflows: The workflow, and those of its children.
        documents: How many documents may be written.
        commands: How many commands may write them; None for as many as documents.
        answering: What somebody does as soon as the run is parked.
        status: How the run ends.
    """

    workflows: tuple[Workflow[Any, Any, Any], ...]
    documents: int
    answering: Answering | None = None
    commands: int | None = None
    status: str = "done"


def one_step(handler: Handler, *others: Workflow[Any, Any, Any]) -> tuple[Workflow[Any, Any, Any], ...]:
    """Return a workflow of this one step, with the workflows of its children."""
    flow: Workflow[Any, Any, Any] = Workflow("counted", state=dict)
    flow.step(id="only")(handler)
    return flow, *others


async def nothing(ctx: Context[Any, Any]) -> None:
    """Use no primitive."""


async def sleep(ctx: Context[Any, Any]) -> None:
    await ctx.sleep(MOMENT)


async def call(ctx: Context[Any, Any]) -> None:
    await ctx.call("once", one)


async def one() -> int:
    return 1


async def wait(ctx: Context[Any, Any]) -> None:
    await ctx.wait("an answer")


async def wait_for(ctx: Context[Any, Any]) -> None:
    await ctx.wait_for("go")


async def wait_for_early(ctx: Context[Any, Any]) -> None:
    await ctx.sleep(10 * MOMENT)
    await ctx.wait_for("go")


async def approve(ctx: Context[Any, Any]) -> None:
    await ctx.approve("may I?")


async def ask(ctx: Context[Any, Any]) -> None:
    await ctx.ask("how many?")


TOKENS: dict[str, str] = {}


async def hook(ctx: Context[Any, Any]) -> None:
    hook = await ctx.create_hook("answer")
    TOKENS[ctx.run_id] = hook.token
    await hook.wait()


async def poll(ctx: Context[Any, Any]) -> None:
    looks = iter([None] * (LOOKS - 1) + [1]) if ctx.run_id not in LOOKED else LOOKED[ctx.run_id]
    LOOKED[ctx.run_id] = looks

    async def look() -> int | None:
        return next(looks)

    await ctx.poll("job", look, every=MOMENT, max_wait="1m")


LOOKED: dict[str, Any] = {}


async def each(ctx: Context[Any, Any]) -> None:
    async def item(value: int, index: int) -> int:
        return value

    await ctx.each("items", range(ITEMS), item)


async def each_call(ctx: Context[Any, Any]) -> None:
    async def item(value: int, index: int) -> int:
        return await ctx.call("once", one)

    await ctx.each("items", range(ITEMS // 2), item)


async def each_inc(ctx: Context[Any, Any]) -> None:
    async def item(value: int, index: int) -> None:
        await ctx.inc("n", 1)

    await ctx.each("items", range(ITEMS), item)


async def gather(ctx: Context[Any, Any]) -> None:
    await ctx.gather("four", {f"branch-{number}": one for number in range(BRANCHES)})


async def loop(ctx: Context[Any, Any]) -> None:
    async def turn(state: int, i: int) -> Continue[int] | Done[int]:
        return Done(state) if i == TURNS - 1 else Continue(state + 1)

    await ctx.loop("turns", 0, turn)


async def choose(ctx: Context[Any, Any]) -> None:
    await ctx.choose("number", 7)


async def checkpoint(ctx: Context[Any, Any]) -> None:
    await ctx.checkpoint({"row": 7})


async def inc(ctx: Context[Any, Any]) -> None:
    await ctx.inc("n", 1)


async def incs_together(ctx: Context[Any, Any]) -> None:
    await asyncio.gather(*(ctx.inc("n", 1) for _ in range(OPERATIONS)))


async def save(ctx: Context[Any, Any]) -> None:
    ctx.state["n"] = 1
    await ctx.save()


async def state(ctx: Context[Any, Any]) -> None:
    ctx.state["n"] = 1


async def said(ctx: Context[Any, Any]) -> None:
    for number in range(SAID):
        await ctx.progress(number / SAID)
        ctx.metric("said", 1)
        ctx.log.info("at %d", number)


async def emit(ctx: Context[Any, Any]) -> None:
    await ctx.emit("order.paid", {"amount": 7})


def kid() -> Workflow[Any, Any, Any]:
    flow: Workflow[Any, Any, Any] = Workflow("kid")
    flow.step(id="only")(nothing)
    return flow


async def child(ctx: Context[Any, Any]) -> None:
    await ctx.start_child("kid")


async def detached(ctx: Context[Any, Any]) -> None:
    await ctx.start_child("kid", wait=False, on_parent_close="abandon")


async def join(ctx: Context[Any, Any]) -> None:
    await ctx.join({f"kid-{number}": ("kid", None) for number in range(CHILDREN)})


def saga() -> tuple[Workflow[Any, Any, Any], ...]:
    """Two steps that can be undone, and one that fails."""
    flow: Workflow[Any, Any, Any] = Workflow("saga")

    async def undo(ctx: Context[Any, Any], output: Any) -> None:
        """Undo nothing."""

    async def fail(ctx: Context[Any, Any]) -> None:
        raise NonRetriableError("no")

    for name in ("first", "second"):
        flow.step(id=name)(nothing).compensate(undo)
    flow.step(id="third")(fail)
    return (flow,)


def group(*handlers: Handler) -> tuple[Workflow[Any, Any, Any], ...]:
    """A group of steps."""
    flow: Workflow[Any, Any, Any] = Workflow("group")
    for number, handler in enumerate(handlers):
        flow.step(id=f"member-{number}", group="together")(handler)
    return (flow,)


def jumping() -> tuple[Workflow[Any, Any, Any], ...]:
    """Two steps, of which the second jumps back to the first so many times."""
    flow: Workflow[Any, Any, Any] = Workflow("jumping", state=dict)
    first = flow.step(id="first")(nothing)

    @flow.step
    async def second(ctx: Context[Any, Any]) -> None:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        if ctx.state["n"] <= JUMPS:
            ctx.goto(first)

    return (flow,)


async def send(app: Streamline, run_id: str) -> None:
    await app.send_event("go", {"n": 1}, run_id=run_id)


async def send_to_all(app: Streamline, run_id: str) -> None:
    await app.send_event("go", {"n": 1})


CASES = {
    "nothing": Case(one_step(nothing), 2),
    "sleep": Case(one_step(sleep), 4),
    "call": Case(one_step(call), 3),
    "wait": Case(one_step(wait), 5, lambda app, run_id: app.resume(run_id, 1)),
    "wait_for": Case(one_step(wait_for), 6, send),
    "wait_for, event for many": Case(one_step(wait_for), 8, send_to_all),
    "wait_for, event first": Case(one_step(wait_for_early), 6, send),
    "hook": Case(one_step(hook), 6, lambda app, run_id: app.resume_hook(TOKENS[run_id], 1)),
    "approve": Case(one_step(approve), 5, lambda app, run_id: app.approve(run_id)),
    "ask": Case(one_step(ask), 5, lambda app, run_id: app.answer(run_id, 7)),
    "poll, 3 looks": Case(one_step(poll), 7),
    "each of 100": Case(one_step(each), 4),
    "each of 50, a call in each": Case(one_step(each_call), 5),
    "each of 100, an inc in each": Case(one_step(each_inc), 6),
    "gather of 4": Case(one_step(gather), 4),
    "loop of 10 turns": Case(one_step(loop), 12),
    "choose": Case(one_step(choose), 3),
    "checkpoint": Case(one_step(checkpoint), 3),
    "inc": Case(one_step(inc), 3),
    "4 incs at once": Case(one_step(incs_together), 6),
    "save": Case(one_step(save), 3),
    "state, unsaved": Case(one_step(state), 2),
    "progress, metric, log, 50 of each": Case(one_step(said), 3),
    "emit": Case(one_step(emit), 5),
    "start_child": Case(one_step(child, kid()), 12),
    "start_child, wait=False": Case(one_step(detached, kid()), 8),
    # Two children that end at once may both tell the parent; how many share a command is a matter of timing.
    "join of 20": Case(one_step(join, kid()), 90, commands=40),
    "2 compensations": Case(saga(), 6, status="compensated"),
    "group of 3": Case(group(nothing, nothing, nothing), 4),
    "group of 3, a sleep in each": Case(group(sleep, sleep, sleep), 7),
    "2 gotos": Case(jumping(), 7),
}


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.mark.parametrize("name", CASES)
async def test_a_primitive_writes_no_more_than_it_must(
    name: str, mongo_uri: str, database_name: str, database: Any, commands: Commands
) -> None:
    case = CASES[name]
    async with counted_app(mongo_uri, database_name, commands, *case.workflows, worker=STILL) as app:
        handle = await app.start(case.workflows[0])
        if case.answering is not None:
            await eventually(lambda: is_parked(database, handle))
            await case.answering(app, handle.id)
        run = await handle.wait("20s")
        await eventually(lambda: all_is_over(database))
        counted, written = commands.documents, commands.writes
    assert run.status == case.status
    assert counted <= case.documents, commands.by_name
    assert written <= (case.commands or case.documents), commands.by_name


def test_the_table_of_the_docs_shows_these_figures() -> None:
    table = PAGE.read_text().partition("## What each primitive costs")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    shown = {name.replace("`", ""): documents for name, documents, *_ in cells[2:]}
    assert shown == {name: str(case.documents) for name, case in CASES.items()}


async def is_parked(database: Any, handle: RunHandle[Any]) -> bool:
    """Looked up beside the app, so that it is not counted."""
    query = {"_id": handle.id, "status": "waiting", "lease": {"$exists": False}}
    # What a verb reads is what a majority has; what was just written may not be seen there yet.
    runs = database.get_collection("streamline.runs", read_concern=ReadConcern("majority"))
    return bool(await runs.count_documents(query))


async def all_is_over(database: Any) -> bool:
    """Return whether every run has ended and owes nothing any more."""
    query = {"$or": [{"status": {"$nin": sorted(TERMINAL)}}, {"owes_at": {"$exists": True}}]}
    owed = await database["streamline.inbox"].count_documents({"owed_at": {"$exists": True}})
    return not owed and not await database["streamline.runs"].count_documents(query)
