"""Declaring workflows: what is allowed, and what is refused where it is written."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, RetryPolicy, Workflow
from streamline.errors import DefinitionError, DuplicateStep, InvalidName, InvalidPolicy


class Order(BaseModel):
    order_id: str


async def handler(ctx: Context[Any]) -> int:
    return 1


def test_steps_are_kept_in_the_order_of_declaration() -> None:
    wf = Workflow("order", version="1.2.3", input=Order, title="Orders", description="Sells things.")

    @wf.step
    async def reserve(ctx: Context[Order]) -> str:
        return ""

    @wf.step("charge-card")
    def charge(ctx: Context[Order]) -> str:
        return ""

    @wf.step(id="ship")
    async def anything(ctx: Context[Order]) -> str:
        return ""

    @wf.step()
    async def thank(ctx: Context[Order]) -> str:
        return ""

    definition = wf.definition
    assert [step.id for step in definition.steps] == ["reserve", "charge-card", "ship", "thank"]
    assert [step.threaded for step in definition.steps] == [False, True, False, False]
    assert (definition.name, definition.version, definition.route) == ("order", "1.2.3", "order@1.2.3")
    assert definition.index == {"reserve": 0, "charge-card": 1, "ship": 2, "thank": 3}
    assert (wf.title, wf.description) == ("Orders", "Sells things.")
    assert (reserve.id, charge.id, anything.id) == ("reserve", "charge-card", "ship")
    assert wf.definition is definition


async def test_a_step_stays_callable() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    step = wf.step(handler)
    assert step.fn is handler
    assert await step.fn(None) == 1  # type: ignore[arg-type]
    assert repr(step) == "<step handler>"
    assert repr(wf) == "<workflow order@1.0.0>"


def test_the_rules_of_the_workflow_hold_where_a_step_has_none_of_its_own() -> None:
    policy, own = RetryPolicy(max_attempts=7), RetryPolicy(max_attempts=2)
    wf: Workflow[Any, Any, Any] = Workflow("order", retry=policy, timeout="30s")
    wf.step("plain")(handler)
    wf.step("own", retry=own, timeout="5s")(handler)
    wf.step("short", max_attempts=1)(handler)
    plain, mine, short = wf.definition.steps
    assert (plain.retry, plain.timeout) == (policy, timedelta(seconds=30))
    assert (mine.retry, mine.timeout) == (own, timedelta(seconds=5))
    assert short.retry == RetryPolicy(max_attempts=1)


def test_without_any_rules_the_defaults_hold() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    wf.step(handler)
    (step,) = wf.definition.steps
    assert (step.retry, step.timeout, step.on_error, step.skip_if, step.run_if) == (
        RetryPolicy(),
        None,
        "fail",
        None,
        None,
    )
    assert wf.version == "1.0.0"


BAD_WORKFLOWS: list[tuple[dict[str, Any], type[DefinitionError], str]] = [
    *[({"name": bad}, InvalidName, "name") for bad in ("", "a.b", "a b", "$a", "a\0", "12", "x" * 101, None, 5, "_a")],
    *[({"version": bad}, InvalidName, "version") for bad in ("", "1 0", "a@b", None, 1, "x" * 65)],
    *[({"input": bad}, DefinitionError, "input") for bad in (5, bytearray)],
    ({"state": bytearray}, DefinitionError, "state"),
    ({"output": bytearray}, DefinitionError, "output"),
    *[({"retry": bad}, InvalidPolicy, "retry") for bad in (3, "3", {"max_attempts": 3}, True)],
    *[({"timeout": bad}, InvalidPolicy, "timeout") for bad in (0, -1, "soon", "0s", True, float("nan"))],
    *[({"idempotency_key": bad}, DefinitionError, "idempotency_key") for bad in ("key", 5)],
    *[
        ({"retention": bad}, InvalidPolicy, "retention")
        for bad in (-1, "long", {"gone": "1d"}, {"running": "1d"}, True)
    ],
    ({"retention": {"done": -1}}, InvalidPolicy, "retention.done"),
    *[({"max_payload_bytes": bad}, InvalidPolicy, "max_payload_bytes") for bad in (0, -1, "1", True, 1.5, 10**9)],
]


@pytest.mark.parametrize(("given", "error", "field"), BAD_WORKFLOWS, ids=repr)
def test_a_bad_workflow_is_refused_with_the_field(
    given: dict[str, Any], error: type[DefinitionError], field: str
) -> None:
    with pytest.raises(error) as caught:
        Workflow(**{"name": "order", **given})
    assert str(caught.value.field).startswith(field)


BAD_RULES: list[tuple[dict[str, Any], str]] = [
    *[({"id": bad}, "step id") for bad in ("", "a.b", "0", "$a", "a\0b", "a b", "x" * 101, 5, "_a")],
    *[({"retry": bad}, "retry") for bad in (3, {}, "fast")],
    *[({"max_attempts": bad}, "max_attempts") for bad in (0, -1, 1.5, True, "3", 10**9)],
    ({"max_attempts": 3, "retry": RetryPolicy()}, "max_attempts"),
    *[({"timeout": bad}, "timeout") for bad in (0, -1, "soon", True)],
    *[({"skip_if": bad}, "skip_if") for bad in (True, "x", 5)],
    *[({"run_if": bad}, "run_if") for bad in (True, "x")],
    *[({"on_error": bad}, "on_error") for bad in ("ignore", None, True)],
]


@pytest.mark.parametrize(("rules", "field"), BAD_RULES, ids=repr)
def test_a_bad_rule_is_refused_with_the_field(rules: dict[str, Any], field: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    with pytest.raises(DefinitionError) as caught:
        wf.step(**rules)(handler)
    assert caught.value.field == field


def test_an_unknown_rule_is_refused() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    with pytest.raises((TypeError, DefinitionError), match="retries"):
        wf.step(retries=3)(handler)  # type: ignore[call-overload]


def no_arguments() -> None: ...
def two_arguments(ctx: Any, more: Any) -> None: ...
def only_by_name(*, ctx: Any) -> None: ...
def generator(ctx: Any) -> Iterator[int]:
    yield 1


async def async_generator(ctx: Any) -> AsyncIterator[int]:
    yield 1


class NotCallable:
    pass


@pytest.mark.parametrize(
    "bad",
    [no_arguments, two_arguments, only_by_name, generator, async_generator, 5, "name", NotCallable(), lambda: 1],
    ids=lambda bad: getattr(bad, "__name__", repr(bad)),
)
def test_a_handler_that_cannot_work_is_refused(bad: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    with pytest.raises(DefinitionError) as caught:
        wf.step("s")(bad)
    assert caught.value.field == "handler"


def with_default(ctx: Any, more: int = 3) -> int:
    return more


def with_rest(*args: Any, **kwargs: Any) -> int:
    return 1


@pytest.mark.parametrize("good", [with_default, with_rest, functools.partial(two_arguments, 1), lambda ctx: 1])
def test_a_handler_may_take_more_than_it_must(good: Callable[..., Any]) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    wf.step("s")(good)
    assert wf.definition.steps[0].threaded


def test_two_steps_cannot_share_an_id() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    wf.step("a")(handler)
    with pytest.raises(DuplicateStep) as caught:
        wf.step("a")(handler)
    assert caught.value.field == "id"
    assert "'a'" in str(caught.value)
    assert len(wf.definition.steps) == 1


def test_a_handler_without_a_name_needs_an_id() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    with pytest.raises(InvalidName):
        wf.step(functools.partial(two_arguments, 1))
    with pytest.raises(InvalidName):
        wf.step(lambda ctx: 1)


def test_a_workflow_without_steps_cannot_be_registered() -> None:
    with pytest.raises(DefinitionError) as caught:
        _ = Workflow("order").definition
    assert caught.value.field == "steps"


def test_no_step_can_be_added_once_the_workflow_is_registered() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    wf.step("a")(handler)
    _ = wf.definition
    with pytest.raises(DefinitionError) as caught:
        wf.step("b")(handler)
    assert caught.value.field == "steps"


def test_the_number_of_steps_is_limited() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")
    for i in range(1000):
        wf.step(f"s{i}")(handler)
    with pytest.raises(DefinitionError, match="1000"):
        wf.step("one-more")(handler)


def test_types_that_are_defined_next_to_a_step_are_found() -> None:
    class Local(BaseModel):
        x: int

    wf: Workflow[Any, Any, Any] = Workflow("order")

    @wf.step
    async def make(ctx: Context[Any]) -> Local:
        return Local(x=1)

    @wf.step("again")
    async def make_again(ctx: Context[Any]) -> list[Local]:
        return [Local(x=1)]

    first, second = wf.definition.steps
    assert first.output.annotation is Local
    assert second.output.annotation == list[Local]


def test_an_annotation_that_cannot_be_resolved_is_refused_with_the_step() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")

    async def lost(ctx: Context[Any]) -> Any: ...

    lost.__annotations__["return"] = "NoSuchType"
    with pytest.raises(DefinitionError) as caught:
        wf.step(lost)
    assert caught.value.field == "step lost"
    assert "NoSuchType" in str(caught.value)


def test_an_output_that_pydantic_cannot_handle_is_refused_with_the_step() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")

    async def odd(ctx: Context[Any]) -> NotCallable: ...  # type: ignore[empty-body]

    with pytest.raises(DefinitionError) as caught:
        wf.step(odd)
    assert caught.value.field == "step odd"


@pytest.mark.parametrize("annotation", [None, Any, int, "int", list[int], "Order | None"], ids=repr)
def test_annotations_of_every_kind_are_read(annotation: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order")

    async def some(ctx: Context[Any]) -> Any: ...

    some.__annotations__["return"] = annotation
    wf.step(some)
    expected = (
        {"int": int, "Order | None": Order | None, None: type(None)}.get(annotation, annotation)
        if not isinstance(annotation, type(list[int]))
        else annotation
    )
    assert wf.definition.steps[0].output.annotation == expected


def test_a_decorated_handler_keeps_its_annotation() -> None:
    def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def wrapper(*args: Any) -> Any:
            return await fn(*args)

        return wrapper

    wf: Workflow[Any, Any, Any] = Workflow("order")

    @wf.step
    @logged
    async def count(ctx: Context[Any]) -> int:
        return 1

    assert wf.definition.steps[0].output.annotation is int
    assert wf.definition.steps[0].id == "count"


def test_the_workflows_output_is_the_last_steps() -> None:
    wf: Workflow[Any, Any, Order] = Workflow("order", output=Order)
    wf.step("a")(handler)
    wf.step("b")(handler)
    first, last = wf.definition.steps
    assert first.output.annotation is int
    assert last.output.annotation is Order


def test_retention_is_read_for_every_end() -> None:
    ends = {"done", "failed", "cancelled", "compensated", "compensation_failed"}
    assert Workflow("a", retention="2d")._retention == dict.fromkeys(ends, timedelta(days=2))
    assert Workflow("a", retention={"done": 60})._retention == {"done": timedelta(minutes=1)}
    assert Workflow("a")._retention == {}


def test_a_workflow_can_be_drawn() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("order", version="2.0.0")
    wf.step("reserve")(handler)
    wf.step("gift-wrap", skip_if=lambda ctx: True)(handler)
    wf.step("ship")(handler)
    assert wf.mermaid() == (
        "flowchart TD\n"
        "    start([order 2.0.0])\n"
        '    s0["reserve"]\n'
        '    s1["gift-wrap"]\n'
        '    s2["ship"]\n'
        "    finish([done])\n"
        "    start --> s0\n"
        "    s0 --> s1\n"
        "    s1 --> s2\n"
        "    s2 --> finish\n"
        "    s0 -. skip .-> s2\n"
    )


def test_definitions_do_not_touch_one_another() -> None:
    one: Workflow[Any, Any, Any] = Workflow("one")
    two: Workflow[Any, Any, Any] = Workflow("two")
    one.step("a")(handler)
    two.step("a")(handler)
    two.step("b")(handler)
    assert len(one.definition.steps) == 1
    assert len(two.definition.steps) == 2


def test_a_transactional_step_is_a_coroutine_function_that_stands_alone() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("pay")
    wf.step("pay", transactional=True)(handler)

    def plain(ctx: Context[Any]) -> int:
        return 1

    def declare(step_id: str, fn: Any, **rules: Any) -> None:
        wf.step(step_id, **{"transactional": True, **rules})(fn)

    for fn, rules in ((plain, {}), (handler, {"group": "g"}), (handler, {"transactional": "yes"})):
        with pytest.raises(DefinitionError) as caught:
            declare("other", fn, **rules)
        assert caught.value.field == "transactional"
    wf.step("last")(handler)
    assert [step.transactional for step in wf.definition.steps] == [True, False]
    assert wf.definition.is_transactional
