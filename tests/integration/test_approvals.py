"""``ctx.approve``: somebody decides, by the run's id or by a token; the handler goes on with the decision."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, Decision, Streamline, Wait, Workflow
from streamline.errors import HookNotFound, InvalidInput, NotWaiting, RunNotFound, StreamlineError
from tests.clocks import MovableClock
from tests.waiting import status_of


class Approval:
    """A workflow that asks for an approval, and what its handlers saw."""

    def __init__(self, **rules: Any) -> None:
        self.decisions: list[Decision] = []
        self.entered = 0
        self.workflow: Workflow[Any, Any, Any] = Workflow("approval")

        @self.workflow.step(max_attempts=1)
        async def sign(ctx: Context[Any]) -> str:
            self.entered += 1
            self.decisions.append(await ctx.approve("pay 5 euros?", **rules))
            return self.decisions[-1].outcome


async def parked(app: Streamline, workflow: Workflow[Any, Any, Any]) -> Any:
    handle = await app.start(workflow)
    assert await app.tick() == 1
    assert await handle.status() == "waiting"
    return handle


async def decide(app: Streamline, whom: str, outcome: str, **told: Any) -> None:
    verb = {"approved": app.approve, "rejected": app.reject, "withdrawn": app.withdraw}[outcome]
    await verb(whom, **told)


@pytest.mark.parametrize("outcome", ["approved", "rejected", "withdrawn"])
@pytest.mark.parametrize("way", ["run id", "token"])
async def test_a_decision_reaches_the_handler_with_all_that_was_said(make_app: Any, outcome: str, way: str) -> None:
    tokens: list[str] = []
    approval = Approval(data={"amount": 5}, on_token=tokens.append if way == "token" else None)
    async with make_app(approval.workflow, worker=False) as app, make_app(worker=False) as other:
        handle = await parked(app, approval.workflow)
        (wait,) = (await handle.get()).waits
        assert (wait.kind, wait.reason, wait.data, wait.approvers) == ("approval", "pay 5 euros?", {"amount": 5}, None)
        told = {"by": "ann", "reason": "because"} | ({} if outcome == "withdrawn" else {"data": {"limit": 3}})
        await decide(other, tokens[0] if way == "token" else handle.id, outcome, **told)
        stored = await handle.get()
        await app.tick()
        assert await handle.result("5s") == outcome
    (decision,) = approval.decisions
    assert (decision.outcome, decision.by, decision.reason) == (outcome, "ann", "because")
    assert decision.data == told.get("data")
    assert decision.approved is bool(decision) is (outcome == "approved")
    assert decision.at is not None
    assert abs(decision.at - stored.updated_at) < timedelta(seconds=1)
    assert approval.entered == 2


@pytest.mark.parametrize("data", [None, False, 0, "", [], {}])
async def test_falsy_data_of_a_decision_is_kept(make_app: Any, data: Any) -> None:
    approval = Approval()
    async with make_app(approval.workflow, worker=False) as app:
        handle = await parked(app, approval.workflow)
        await app.approve(handle.id, data)
        await app.tick()
    assert approval.decisions[0].data == data
    assert type(approval.decisions[0].data) is type(data)


async def test_whoever_says_nothing_more_says_nothing_more(make_app: Any) -> None:
    approval = Approval()
    async with make_app(approval.workflow, worker=False) as app:
        handle = await parked(app, approval.workflow)
        await app.reject(handle.id)
        await app.tick()
    (decision,) = approval.decisions
    assert (decision.by, decision.reason, decision.data) == (None, None, None)


@pytest.mark.parametrize("on_timeout", ["timed_out", "rejected", "approved"])
async def test_where_nobody_decides_in_time_the_outcome_is_the_one_declared(make_app: Any, on_timeout: str) -> None:
    clock, approval = MovableClock(), Approval(timeout="1d", on_timeout=on_timeout)
    async with make_app(approval.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, approval.workflow)
        clock.move(days=1, minutes=1)
        with pytest.raises(NotWaiting):
            await app.approve(handle.id)
        await app.tick()
        assert await handle.result("5s") == on_timeout
    assert approval.decisions[0].by is None
    assert approval.decisions[0].approved is (on_timeout == "approved")


async def test_timed_out_is_the_default_outcome(make_app: Any) -> None:
    clock, approval = MovableClock(), Approval(timeout="1d")
    async with make_app(approval.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, approval.workflow)
        clock.move(days=2)
        await app.tick()
        assert await handle.result("5s") == "timed_out"


async def test_a_second_decision_is_refused_and_changes_nothing(make_app: Any, runs: Any) -> None:
    approval = Approval()
    async with make_app(approval.workflow, worker=False) as app:
        handle = await parked(app, approval.workflow)
        await app.approve(handle.id, by="ann")
        before = await runs.find_one({"_id": handle.id})
        for outcome in ("approved", "rejected", "withdrawn"):
            with pytest.raises(NotWaiting):
                await decide(app, handle.id, outcome, by="ben")
        assert await runs.find_one({"_id": handle.id}) == before
        await app.tick()
        with pytest.raises(NotWaiting):
            await app.reject(handle.id)
        assert await handle.result("5s") == "approved"


async def test_only_the_approvers_decide(make_app: Any, runs: Any) -> None:
    approval = Approval(approvers=["ann", "ben"])
    async with make_app(approval.workflow, worker=False) as app:
        handle = await parked(app, approval.workflow)
        assert (await handle.get()).waits[0].approvers == ("ann", "ben")
        before = await runs.find_one({"_id": handle.id})
        for by in (None, "cid", "Ann", "ann "):
            for outcome in ("approved", "rejected", "withdrawn"):
                with pytest.raises(InvalidInput) as caught:
                    await decide(app, handle.id, outcome, by=by)
                assert caught.value.field == "by"
        assert await runs.find_one({"_id": handle.id}) == before
        await app.approve(handle.id, by="ben")
        await app.tick()
        assert await handle.result("5s") == "approved"


@pytest.mark.parametrize("approvers", ["ann", [], [5], [""], {"ann": 1}], ids=repr)
async def test_approvers_that_name_nobody_fail_the_step_at_once(make_app: Any, approvers: Any) -> None:
    approval = Approval(approvers=approvers)
    async with make_app(approval.workflow, worker=False) as app:
        handle = await app.start(approval.workflow)
        await app.tick()
        run = await handle.get()
    assert (run.status, run.error.code if run.error else None) == ("failed", "key.invalid")


async def test_an_outcome_that_does_not_exist_fails_the_step_at_once(make_app: Any) -> None:
    approval = Approval(on_timeout="withdrawn")
    async with make_app(approval.workflow, worker=False) as app:
        handle = await app.start(approval.workflow)
        await app.tick()
        assert (await handle.get()).error.code == "definition.policy"


async def test_the_token_is_told_before_the_run_is_parked_and_works_at_once(make_app: Any) -> None:
    statuses: list[str] = []
    apps: list[Streamline] = []

    async def tell(token: str) -> None:
        (run,) = (await apps[0].runs()).items
        statuses.append(run.status)
        await apps[0].approve(token, by="at once")

    approval = Approval(on_token=tell)
    async with make_app(approval.workflow) as app:
        apps.append(app)
        assert await app.handle((await app.start(approval.workflow)).id).result("20s") == "approved"
    assert statuses == ["running"]
    assert approval.decisions[-1].by == "at once"


async def test_a_token_that_could_not_be_told_is_told_at_the_next_attempt(make_app: Any) -> None:
    clock, told = MovableClock(), []

    async def tell(token: str) -> None:
        told.append(token)
        if len(told) == 1:
            raise ConnectionError("the mail server is away")

    wf: Workflow[Any, Any, Any] = Workflow("mailed")

    @wf.step(max_attempts=3)
    async def sign(ctx: Context[Any]) -> str:
        return (await ctx.approve("sure?", on_token=tell)).outcome

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        clock.move(minutes=5)
        await app.tick()
        assert len(told) == 2
        assert told[0] == told[1]
        await app.approve(told[0])
        await app.tick()
        assert await handle.result("5s") == "approved"


async def test_a_token_that_was_told_is_not_told_again_by_waking(make_app: Any) -> None:
    told: list[str] = []
    approval = Approval(on_token=told.append)
    async with make_app(approval.workflow, worker=False) as app:
        handle = await parked(app, approval.workflow)
        await app.send_event("something else", run_id=handle.id)
        await app.tick()
        await app.approve(told[0])
        await app.tick()
    assert len(told) == 1


async def test_a_stranger_cannot_tell_why_a_token_opens_nothing(make_app: Any) -> None:
    clock, told = MovableClock(), ["A" * 43]
    approval = Approval(on_token=told.append, timeout="1h")
    async with make_app(approval.workflow, worker=False, clock=clock) as app:
        used, cancelled, noticed = [await parked(app, approval.workflow) for _ in range(3)]
        await app.approve(used.id)
        await cancelled.cancel()
        clock.move(hours=2)
        await app.tick()
        assert await noticed.result("5s") == "timed_out"
        expired = await parked(app, approval.workflow)
        clock.move(hours=2)
        assert await expired.status() == "waiting"
        said = set()
        for token in told:
            for outcome in ("approved", "rejected", "withdrawn"):
                with pytest.raises((HookNotFound, RunNotFound)) as caught:
                    await decide(app, token, outcome)
                said.add((type(caught.value), str(caught.value)))
                assert token not in str(caught.value)
    assert len(told) == 5
    assert len(said) == 1


async def test_a_token_opens_a_wait_only_with_a_verb_of_its_kind(make_app: Any, runs: Any) -> None:
    told: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("both")

    @wf.step(max_attempts=1)
    async def both(ctx: Context[Any]) -> list[str]:
        decision = await ctx.approve("sure?", on_token=told.append)
        answer = await ctx.ask("how many?", on_token=told.append)
        return [decision.outcome, answer.outcome]

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        before = await runs.find_one({"_id": handle.id})
        for wrong in (app.answer, app.resume_hook):
            with pytest.raises(StreamlineError):
                await wrong(told[0], 5)
            assert await runs.find_one({"_id": handle.id}) == before
        await app.approve(told[0])
        await app.tick()
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(StreamlineError):
            await app.approve(told[1])
        assert await runs.find_one({"_id": handle.id}) == before
        await app.answer(told[1], 5)
        await app.tick()
        assert await handle.result("5s") == ["approved", "answered"]


@pytest.mark.parametrize("whom", ["nobody", {"$gt": ""}, None, 5], ids=repr)
async def test_there_is_no_deciding_for_a_run_that_is_not_there(make_app: Any, whom: Any) -> None:
    approval = Approval()
    async with make_app(approval.workflow, worker=False) as app:
        handle = await parked(app, approval.workflow)
        with pytest.raises(RunNotFound):
            await app.approve(whom)
        assert len((await handle.get()).waits) == 1


async def test_of_two_approvals_the_key_says_which(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("two")

    @wf.step
    async def sign(ctx: Context[Any]) -> dict[str, str]:
        async def ask(name: str) -> str:
            return (await ctx.approve(name, key=name)).outcome

        return await ctx.gather("all", {name: lambda name=name: ask(name) for name in ("legal", "money")})

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        await app.reject(handle.id, key="money")
        await app.approve(handle.id, key="legal")
        await app.tick()
        assert await handle.result("5s") == {"legal": "approved", "money": "rejected"}


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (True, "approved"),
        (False, "rejected"),
        (Decision("approved", "eve", "fine", {"n": 0}), "approved"),
        (Decision("withdrawn"), "withdrawn"),
    ],
    ids=["yes", "no", "decision", "withdrawn"],
)
async def test_who_runs_a_workflow_may_decide_in_its_place(
    make_app: Any, said: Any, outcome: str, *, is_async: bool
) -> None:
    asked: list[Wait] = []
    approval = Approval(data=[1])

    async def later(wait: Wait) -> Any:
        asked.append(wait)
        return said

    def at_once(wait: Wait) -> Any:
        asked.append(wait)
        return said

    async with make_app(approval.workflow) as app:
        output = await app.run(approval.workflow, timeout="20s", on_approval=later if is_async else at_once)
    assert output == outcome
    assert [(wait.reason, wait.data) for wait in asked] == [("pay 5 euros?", [1])]
    if isinstance(said, Decision):
        decision = approval.decisions[-1]
        assert (decision.by, decision.reason, decision.data) == (said.by, said.reason, said.data)


async def test_an_approval_of_a_run_that_somebody_awaits_is_rejected_where_nobody_is_to_decide(make_app: Any) -> None:
    approval = Approval(approvers=["ann"])
    async with make_app(approval.workflow) as app, make_app(worker=False) as other:
        assert await app.run(approval.workflow, timeout="20s") == "rejected"
        assert await other.run(approval.workflow, timeout="20s") == "rejected"
        handle = await app.start(approval.workflow)
        await status_of(handle, "waiting")
        assert await app.tick() == 0, "whoever only starts a run decides nothing"
    assert approval.decisions[0].reason is not None


async def test_every_approval_of_a_run_is_put_to_who_runs_it(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("rounds")
    asked = []

    @wf.step
    async def sign(ctx: Context[Any]) -> list[bool]:
        return [(await ctx.approve(f"round {i}")).approved for i in range(4)]

    def judge(wait: Wait) -> bool:
        asked.append(wait.reason)
        return not str(wait.reason).endswith("2")

    async with make_app(wf) as app:
        assert await app.run(wf, timeout="20s", on_approval=judge) == [True, True, False, True]
    assert asked == [f"round {i}" for i in range(4)]


async def test_a_decision_survives_restarts_and_needs_no_worker(make_app: Any) -> None:
    approval = Approval()
    async with make_app(approval.workflow) as app:
        handle = await app.start(approval.workflow)
        await status_of(handle, "waiting")
    async with make_app(worker=False) as deciding:
        await asyncio.gather(deciding.approve(handle.id, by="ann"))
    async with make_app(approval.workflow) as app:
        assert await app.handle(handle.id).result("20s") == "approved"
    assert [decision.by for decision in approval.decisions] == ["ann"]
