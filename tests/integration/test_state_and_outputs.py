"""State that steps share, and outputs that come back as they were annotated."""

from __future__ import annotations

import asyncio
import enum
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from streamline import Context, RetryPolicy, Workflow
from streamline.errors import StepNotFound
from tests.waiting import eventually


class Basket(BaseModel):
    items: list[str] = Field(default_factory=list)
    total: Decimal = Decimal(0)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float = 0.5


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = "Rex"


class Camel(BaseModel):
    two_humps: bool = Field(alias="twoHumps")


async def test_steps_share_the_state(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Basket, Any] = Workflow("basket", state=Basket)

    @wf.step
    async def pick(ctx: Context[Any, Basket]) -> None:
        ctx.state.items.append("pear")
        ctx.state.total += Decimal("1.10")

    @wf.step
    async def price(ctx: Context[Any, Basket]) -> Decimal:
        assert isinstance(ctx.state, Basket)
        ctx.state = ctx.state.model_copy(update={"items": [*ctx.state.items, "plum"]})
        return ctx.state.total * 2

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.output == Decimal("2.20")
    assert run.state == Basket(items=["pear", "plum"], total=Decimal("1.10"))


async def test_a_step_that_leaves_the_state_alone_does_not_write_it(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Basket, Any] = Workflow("basket", state=Basket)

    @wf.step
    async def look(ctx: Context[Any, Basket]) -> int:
        return 1

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
        assert "state" not in await runs.find_one({"_id": run.id})


async def test_state_of_a_failed_attempt_is_forgotten(make_app: Any) -> None:
    wf: Workflow[Any, Basket, Any] = Workflow("basket", state=Basket)
    seen = []

    @wf.step(retry=RetryPolicy(max_attempts=2, delay=0))
    async def shaky(ctx: Context[Any, Basket]) -> None:
        seen.append(list(ctx.state.items))
        ctx.state.items.append("pear")
        if ctx.attempt == 1:
            raise ValueError

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert seen == [[], []]
    assert run.state.items == ["pear"]


async def test_saved_state_is_in_the_database_at_once_and_survives_a_failed_attempt(make_app: Any) -> None:
    wf: Workflow[Any, Basket, Any] = Workflow("basket", state=Basket)
    gate = asyncio.Event()
    seen = []

    @wf.step(retry=RetryPolicy(max_attempts=2, delay=0))
    async def shaky(ctx: Context[Any, Basket]) -> None:
        seen.append(list(ctx.state.items))
        ctx.state.items.append("pear")
        await ctx.save()
        await ctx.save()
        ctx.state.items.append("lost")
        await gate.wait()
        if ctx.attempt == 1:
            raise ValueError

    async with make_app(wf) as app:
        handle = await app.start(wf)

        async def saved() -> bool:
            run = await handle.get()
            return run.state is not None and run.state.items == ["pear"]

        await eventually(saved)
        gate.set()
        run = await handle.wait("20s")
    assert seen == [[], ["pear"]]
    assert run.state.items == ["pear", "pear", "lost"]


async def test_state_without_a_type_is_a_mapping(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("loose")

    @wf.step
    async def first(ctx: Context[Any, Any]) -> None:
        ctx.state["n"] = 1

    @wf.step
    async def second(ctx: Context[Any, Any]) -> int:
        ctx.state["n"] += 1
        return int(ctx.state["n"])

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.output == 2
    assert run.state == {"n": 2}


async def test_state_that_cannot_be_stored_fails_the_step(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("bad", state=Basket)

    @wf.step
    async def spoil(ctx: Context[Any, Any]) -> None:
        ctx.state = {"items": 5}

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert run.status == "failed"
    assert run.error.code == "payload.serialization"
    assert "state" in run.error.message


async def test_ten_runs_do_not_mix_their_states(make_app: Any) -> None:
    wf: Workflow[int, dict[str, int], Any] = Workflow("own", input=int, state=dict[str, int])

    @wf.step
    async def put(ctx: Context[int, dict[str, int]]) -> None:
        ctx.state["mine"] = ctx.input
        await ctx.save()
        await asyncio.sleep(0.01)

    @wf.step
    async def get(ctx: Context[int, dict[str, int]]) -> int:
        return ctx.state["mine"]

    async with make_app(wf) as app:
        handles = [await app.start(wf, i) for i in range(10)]
        assert [await handle.result("20s") for handle in handles] == list(range(10))


VALUES: list[tuple[Any, Any]] = [
    (datetime, datetime(2024, 2, 29, 12, 0, 0, 123000, tzinfo=UTC)),
    (date, date(2024, 2, 29)),
    (timedelta, timedelta(days=1, microseconds=7)),
    (uuid.UUID, uuid.UUID(int=7)),
    (Decimal, Decimal("1.10")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str], (1, "a")),
    (bytes, b"\0\xff"),
    (Colour, Colour.RED),
    (Point, Point(1)),
    (Basket, Basket(items=["$secret"])),
    (dict[str, Basket], {"$a.b": Basket()}),
    (dict[int, str], {1: "one"}),
    (list[Cat | Dog], [Dog(), Cat(lives=1)]),
    (Basket | None, None),
    (Camel, Camel(twoHumps=True)),
    (int | str, "5"),
    (float, 1.0),
]


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=lambda value: repr(value)[:40])
async def test_an_output_comes_back_as_it_was_annotated(make_app: Any, annotation: Any, value: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("typed", input=annotation)

    async def give(ctx: Context[Any]) -> Any:
        return ctx.input

    give.__annotations__["return"] = annotation
    step = wf.step(give)

    async def take(ctx: Context[Any]) -> Any:
        got = ctx.output(step)
        assert got == value
        assert type(got) is type(value)
        return got

    take.__annotations__["return"] = annotation
    wf.step(take)
    async with make_app(wf) as app:
        handle = await app.start(wf, value)
        result = await handle.result("20s")
        run = await handle.get()
    for got in (result, run.input, run.output, run.steps[0].output):
        assert got == value
        assert type(got) is type(value)


async def test_the_workflows_output_type_is_that_of_the_result(make_app: Any) -> None:
    wf: Workflow[Any, Any, Point] = Workflow("typed", output=Point)

    @wf.step
    async def give(ctx: Context[Any]) -> Any:
        return {"x": 3}

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == Point(3)


async def test_the_output_of_a_step_that_does_not_exist_is_asked_for_in_vain(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("lost")
    other: Workflow[Any, Any, Any] = Workflow("other")

    @other.step
    async def elsewhere(ctx: Context[Any]) -> str:
        return "elsewhere"

    @wf.step
    async def ask(ctx: Context[Any]) -> list[Any]:
        with pytest.raises(StepNotFound):
            ctx.output(elsewhere)
        with pytest.raises(StepNotFound):
            ctx.outputs["elsewhere"]
        return [
            ctx.outputs.get("elsewhere"),
            ctx.outputs.get("elsewhere", 5),
            list(ctx.outputs),
            "elsewhere" in ctx.outputs,
        ]

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s") == [None, 5, [], False]


async def test_hostile_values_come_back_as_they_were(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("hostile")
    hostile = {
        "$secret": "$secret",
        "a.b": "$$ROOT",
        "": {"$function": {"body": "return 1", "args": [], "lang": "js"}},
        "$set": {"status": "done"},
        "list": ["$", "$$nosuch", "$[]", "\0"],
        "__proto__": {"constructor": 1},
    }

    @wf.step
    async def echo(ctx: Context[Any]) -> Any:
        ctx.state = {"kept": ["$secret", "$$ROOT", "\0"]}
        assert await ctx.call("echo", lambda value: value, ctx.input) == hostile
        return ctx.input

    async with make_app(wf) as app:
        run = await (await app.start(wf, hostile, metadata={"m": hostile})).wait("20s")
    assert run.error is None
    assert run.input == run.output == run.metadata["m"] == hostile
    assert run.state == {"kept": ["$secret", "$$ROOT", "\0"]}


@pytest.mark.parametrize("state", [{"a.b": 1}, {"$inc": 1}, {"inner": [{"$set": 1}]}, {"": 1}])
async def test_a_key_that_no_path_could_reach_is_refused_in_the_state(make_app: Any, state: dict[str, Any]) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("unreachable")

    @wf.step
    async def change(ctx: Context[Any]) -> None:
        ctx.state = state

    async with make_app(wf) as app:
        run = await (await app.start(wf)).wait("20s")
    assert (run.status, run.error.code, run.error.attempt) == ("failed", "key.invalid", 1)
    assert run.state is None


async def test_what_a_handler_does_to_stored_values_is_not_seen_by_others(make_app: Any, runs: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("aliases")

    @wf.step
    async def give(ctx: Context[Any]) -> Any:
        assert await ctx.call("key", lambda: {"c": [1]}) == {"c": [1]}
        return {"n": [1]}

    @wf.step(retry=RetryPolicy(max_attempts=2, delay=0))
    async def spoil(ctx: Context[Any]) -> Any:
        called = await ctx.call("key", lambda: {"c": [1]})
        assert called == {"c": [1]}
        called["c"].append(2)
        ctx.outputs["give"]["n"].append(2)
        ctx.input["list"].append("spoilt")
        ctx.metadata["m"].append("spoilt")
        if ctx.attempt == 1:
            ctx.state["s"] = ["spoilt"]
            raise ValueError
        assert "s" not in ctx.state
        return None

    @wf.step
    async def look(ctx: Context[Any]) -> Any:
        return [ctx.outputs["give"], ctx.input, dict(ctx.metadata)]

    given = {"list": ["given"]}
    async with make_app(wf) as app:
        run = await (await app.start(wf, given, metadata={"m": []})).wait("20s")
        assert run.error is None
        assert run.output == [{"n": [1]}, {"list": ["given"]}, {"m": []}]
        assert (run.input, run.steps[0].output, run.metadata) == ({"list": ["given"]}, {"n": [1]}, {"m": []})
        stored = await runs.find_one({"_id": run.id})
    assert stored["output"] == run.output
    assert given == {"list": ["given"]}


async def test_what_a_listener_does_to_an_event_is_not_seen_by_others(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("aliases")

    @wf.step(max_attempts=1)
    async def fail(ctx: Context[Any]) -> None:
        raise ValueError("kept")

    async with make_app(wf) as app:
        app.on("*", lambda event: event.data.clear())
        app.on("run.failed", lambda event: event.data.get("error", {}).clear())
        run = await (await app.start(wf)).wait("20s")
        events = [event async for event in app.handle(run.id).events()]
    assert run.error.message == "kept"
    assert events[-1].data["error"]["message"] == "kept"
