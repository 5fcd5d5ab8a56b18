"""Steps declared without a handler: ``wait_step``, ``event_step``, ``approval_step``, ``sleep_step``, ``poll_step``."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, Decision, Workflow
from streamline.errors import InvalidInput, InvalidPolicy, StreamlineError
from tests.clocks import MovableClock


class Card(BaseModel):
    number: str


def listing(wf: Workflow[Any, Any, Any], *steps: Any) -> list[Any]:
    """Add a last step that notes what the steps before it brought."""
    seen: list[Any] = []

    @wf.step
    async def last(ctx: Context[Any]) -> None:
        seen.extend(ctx.outputs.get(step.id) for step in steps)

    return seen


async def test_a_wait_step_has_the_payload_for_its_output(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("waits")
    card = wf.wait_step("card", reason="which card?", data={"hint": 1}, model=Card)
    seen = listing(wf, card)
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        (wait,) = await app.pending_waits("wait")
        assert (wait.step, wait.reason, wait.data) == ("card", "which card?", {"hint": 1})
        with pytest.raises(InvalidInput):
            await app.resume(handle.id, {"number": 5.5})
        await app.resume(handle.id, {"number": "4"})
        await app.tick()
        run = await handle.get()
    assert run.status == "done"
    assert seen == [Card(number="4")]
    assert run.step("card").output == Card(number="4")


@pytest.mark.parametrize("payload", [None, False, 0, "", []])
async def test_a_falsy_payload_is_an_output(make_app: Any, payload: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("waits")
    wf.wait_step("it", reason="it", default="d")
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        await handle.resume(payload)
        await app.tick()
        run = await handle.get()
    assert (run.status, run.output, run.step("it").status) == ("done", payload, "done")


async def test_an_event_step_has_the_events_payload_for_its_output_early_or_late(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("events")
    first = wf.event_step("first", event="paid", match={"n": 2}, model=dict[str, int])
    second = wf.event_step("second", event="shipped")
    seen = listing(wf, first, second)
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        assert (await handle.get()).waits[0].name == "paid"
        for name, payload in (("shipped", "early"), ("paid", {"n": 1}), ("paid", {"n": 2})):
            await app.send_event(name, payload, run_id=handle.id)
        await app.tick()
        assert await handle.status() == "done"
    assert seen == [{"n": 2}, "early"]


@pytest.mark.parametrize("outcome", ["approved", "rejected", "withdrawn", "timed_out"])
async def test_an_approval_step_has_the_decision_for_its_output(make_app: Any, outcome: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("approvals")
    sign = wf.approval_step("sign", reason="sure?", data=5, approvers=["ann"], timeout="1h")
    seen = listing(wf, sign)
    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        (wait,) = await app.pending_waits("approval")
        assert (wait.reason, wait.data, wait.approvers) == ("sure?", 5, ("ann",))
        if outcome == "timed_out":
            clock.move(hours=2)
        else:
            with pytest.raises(InvalidInput):
                await app.approve(handle.id, by="ben")
            verb = {"approved": app.approve, "rejected": app.reject, "withdrawn": app.withdraw}[outcome]
            await verb(handle.id, by="ann", reason="because")
        await app.tick()
        run = await handle.get()
    assert run.status == "done"
    assert isinstance(run.step("sign").output, Decision)
    (decision,) = seen
    assert isinstance(decision, Decision)
    assert (decision.outcome, decision.approved) == (outcome, outcome == "approved")
    assert decision.by == (None if outcome == "timed_out" else "ann")


async def test_an_approval_step_may_approve_by_itself(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("approvals")
    sign = wf.approval_step("sign", reason="sure?", timeout="1h", on_timeout="approved")
    seen, clock = listing(wf, sign), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        await app.tick()
    assert [decision.outcome for decision in seen] == ["approved"]


async def test_a_sleep_step_passes_its_time(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("sleeps")
    nap = wf.sleep_step("nap", "30d")
    seen, clock = listing(wf, nap), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(days=29)
        assert await app.tick() == 0
        clock.move(days=2)
        assert await app.tick() == 1
        assert await handle.status() == "done"
    assert seen == [None]


async def test_a_poll_step_submits_once_and_looks_until_there_is_a_result(make_app: Any) -> None:
    submitted, looked = [], []
    wf: Workflow[Any, Any, Any] = Workflow("polls")

    async def submit(ctx: Context[Any]) -> dict[str, Any]:
        submitted.append(ctx.input)
        return {"id": len(submitted)}

    async def check(ctx: Context[Any], job: dict[str, Any]) -> str | None:
        looked.append(job)
        return f"result of {job['id']}" if len(looked) == 3 else None

    result = wf.poll_step("result", submit=submit, check=check, every="1m")
    seen, clock = listing(wf, result), MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf, "in")
        for _ in range(3):
            await app.tick()
            assert await app.tick() == 0
            clock.move(seconds=61)
        assert await handle.status() == "done"
    assert submitted == ["in"]
    assert looked == [{"id": 1}] * 3
    assert seen == ["result of 1"]


async def test_a_poll_step_that_finds_nothing_in_time_fails(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("polls")

    async def submit(ctx: Context[Any]) -> int:
        return 1

    async def check(ctx: Context[Any], job: int) -> None:
        return None

    wf.poll_step("result", submit=submit, check=check, every="1m", max_wait="10m")
    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        for _ in range(20):
            await app.tick()
            clock.move(minutes=2)
        run = await handle.get()
    assert (run.status, run.error.code) == ("failed", "wait.timeout")


@pytest.mark.parametrize("kind", ["wait", "event"])
@pytest.mark.parametrize("on_timeout", ["fail", "skip", "step", "default"])
async def test_what_happens_where_nothing_comes_in_time_is_declared(make_app: Any, kind: str, on_timeout: str) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("late")
    reached = []

    async def note(ctx: Context[Any]) -> str:
        reached.append(ctx.step_id)
        return ctx.step_id

    remind: Any = wf.step(id="remind", skip_if=lambda ctx: "remind" not in str(ctx.input))(note)
    rules: dict[str, Any] = {"default": "d"} if on_timeout == "default" else {"on_timeout": on_timeout}
    declare: Any = (wf.wait_step, {"reason": "it"}) if kind == "wait" else (wf.event_step, {"event": "it"})
    escalated: list[Any] = []
    if on_timeout == "step":
        escalated.append(remind)
        rules = {"on_timeout": remind}
    verb, asked = declare
    verb("it", timeout="1h", **asked, **rules)
    wf.step(id="last")(note)
    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf, "remind" if on_timeout == "step" else "")
        await app.tick()
        before = list(reached)
        clock.move(hours=2)
        await app.tick()
        run = await handle.get()
    step = run.step("it")
    if on_timeout == "fail":
        assert (run.status, run.error.code, step.status, reached) == ("failed", "wait.timeout", "failed", [])
    elif on_timeout == "skip":
        assert (run.status, step.status, reached) == ("done", "skipped", ["last"])
    elif on_timeout == "default":
        assert (run.status, step.output, reached) == ("done", "d", ["last"])
    else:
        # Back to the reminder, and then the same question again.
        assert (before, reached) == (["remind"], ["remind", "remind"])
        assert (run.status, step.status) == ("waiting", "waiting")


async def test_a_step_to_go_on_at_may_be_a_later_one(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("late")
    reached = []

    async def note(ctx: Context[Any]) -> None:
        reached.append(ctx.step_id)

    target: Workflow[Any, Any, Any] = Workflow("late")
    escalate: Any = target.step(id="escalate")(note)
    wf.wait_step("it", reason="it", timeout="1h", on_timeout=escalate)
    wf.step(id="pay")(note)
    wf.step(id="escalate")(note)
    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(hours=2)
        await app.tick()
        run = await handle.get()
    assert (run.status, reached) == ("done", ["escalate"])


async def test_answers_in_time_lead_past_what_is_declared_for_lateness(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("prompt")
    it = wf.wait_step("it", reason="it", timeout="1h", on_timeout="skip")
    seen = listing(wf, it)
    async with make_app(wf, worker=False) as app:
        handle = await app.start(wf)
        await app.tick()
        await handle.resume("prompt")
        await app.tick()
        assert (await handle.get()).step("it").status == "done"
    assert seen == ["prompt"]


@pytest.mark.parametrize(
    "declare",
    [
        lambda wf: wf.wait_step("it", reason="r", on_timeout="later"),
        lambda wf: wf.wait_step("it", reason="r", timeout="soon"),
        lambda wf: wf.event_step("it", event="e", timeout=-1),
        lambda wf: wf.sleep_step("it", -1),
        lambda wf: wf.sleep_step("it", "soon"),
        lambda wf: wf.poll_step("it", submit=print, check=print, every=0),
        lambda wf: wf.poll_step("it", submit=print, check=print, every=1, max_wait="soon"),
        lambda wf: wf.approval_step("it", reason="r", timeout="soon"),
        lambda wf: wf.approval_step("it", reason="r", on_timeout="withdrawn"),
    ],
    ids=range(9),
)
def test_a_declaration_that_makes_no_sense_is_refused_at_once(declare: Any) -> None:
    with pytest.raises(InvalidPolicy):
        declare(Workflow("wrong"))


def test_an_id_can_be_declared_once() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("twice")
    wf.sleep_step("it", 1)
    with pytest.raises(StreamlineError):
        wf.wait_step("it", reason="r")


async def test_declared_steps_survive_restarts(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("all")
    steps = [
        wf.sleep_step("nap", "1h"),
        wf.wait_step("wait", reason="r"),
        wf.event_step("event", event="e"),
        wf.approval_step("sign", reason="r"),
    ]
    seen, clock = listing(wf, *steps), MovableClock()
    answers: list[Any] = [
        lambda app, run_id: app.get(run_id),
        lambda app, run_id: app.resume(run_id, 1),
        lambda app, run_id: app.send_event("e", 2, run_id=run_id),
        lambda app, run_id: app.approve(run_id, 3),
    ]
    async with make_app(wf, worker=False, clock=clock) as app:
        run_id = (await app.start(wf)).id
        await app.tick()
    for answer in answers:
        async with make_app(wf, worker=False, clock=clock) as app:
            await answer(app, run_id)
            clock.move(hours=2)
            await app.tick()
            run = await app.get(run_id)
    assert run.status == "done"
    assert [*seen[:3], seen[3].data] == [None, 1, 2, 3]
