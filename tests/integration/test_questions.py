"""``ctx.ask`` and ``app.answer``: a question to somebody, once or turn by turn."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from streamline import Answer, Context, Continue, Done, Streamline, Workflow
from streamline.errors import InvalidInput, NotWaiting
from tests.clocks import MovableClock
from tests.waiting import eventually, status_of


class Card(BaseModel):
    number: str
    year: int


class Question:
    """A workflow that asks, and what its handlers saw."""

    def __init__(self, **rules: Any) -> None:
        self.answers: list[Answer] = []
        self.workflow: Workflow[Any, Any, Any] = Workflow("question")

        @self.workflow.step(max_attempts=1)
        async def ask(ctx: Context[Any]) -> str:
            self.answers.append(await ctx.ask("which card?", **rules))
            return self.answers[-1].outcome


async def parked(app: Streamline, workflow: Workflow[Any, Any, Any]) -> Any:
    handle = await app.start(workflow)
    assert await app.tick() == 1
    assert await handle.status() == "waiting"
    return handle


@pytest.mark.parametrize("way", ["run id", "token"])
async def test_an_answer_reaches_the_handler(make_app: Any, way: str) -> None:
    tokens: list[str] = []
    question = Question(model=Card, data={"hint": 1}, on_token=tokens.append if way == "token" else None)
    async with make_app(question.workflow, worker=False) as app, make_app(worker=False) as other:
        handle = await parked(app, question.workflow)
        (wait,) = (await handle.get()).waits
        assert (wait.kind, wait.reason, wait.data) == ("question", "which card?", {"hint": 1})
        await other.answer(tokens[0] if tokens else handle.id, {"number": "1", "year": 30}, by="ann")
        await eventually(app.tick)  # the clocks of two apps may be a millisecond apart
        assert await handle.result("5s") == "answered"
    (answer,) = question.answers
    assert (answer.data, answer.value, answer.by, answer.reason) == (Card(number="1", year=30),) * 2 + ("ann", None)
    assert answer.answered
    assert answer.at is not None


@pytest.mark.parametrize("payload", [None, False, 0, "", [], {}])
async def test_a_falsy_answer_is_an_answer(make_app: Any, payload: Any) -> None:
    question = Question()
    async with make_app(question.workflow, worker=False) as app:
        handle = await parked(app, question.workflow)
        await app.answer(handle.id, payload)
        await app.tick()
    (answer,) = question.answers
    assert (answer.outcome, answer.answered, answer.data) == ("answered", True, payload)
    assert type(answer.data) is type(payload)


@pytest.mark.parametrize("outcome", ["rejected", "withdrawn", "timed_out"])
async def test_a_question_can_end_without_an_answer(make_app: Any, outcome: str) -> None:
    clock, question = MovableClock(), Question(model=int, timeout="1h")
    async with make_app(question.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, question.workflow)
        if outcome == "rejected":
            await app.reject(handle.id, reason="none of your business", by="ann")
        elif outcome == "withdrawn":
            await app.withdraw(handle.id, reason="asked in vain")
        else:
            clock.move(hours=2)
            with pytest.raises(NotWaiting):
                await app.answer(handle.id, 5)
        await app.tick()
        with pytest.raises(NotWaiting):
            await app.answer(handle.id, 5)
    (answer,) = question.answers
    assert (answer.outcome, answer.answered, answer.data) == (outcome, False, None)
    assert answer.reason == {"rejected": "none of your business", "withdrawn": "asked in vain"}.get(outcome)


@pytest.mark.parametrize("way", ["run id", "token"])
async def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays(
    make_app: Any, runs: Any, way: str
) -> None:
    tokens: list[str] = []
    question = Question(model=Card, on_token=tokens.append)
    async with make_app(question.workflow, worker=False) as app:
        handle = await parked(app, question.workflow)
        whom = handle.id if way == "run id" else tokens[0]
        before = await runs.find_one({"_id": handle.id})
        for bad in ({"number": "1", "year": "soon"}, None, 5, [], "text", {}):
            with pytest.raises(InvalidInput):
                await app.answer(whom, bad)
        assert await runs.find_one({"_id": handle.id}) == before
        await app.answer(whom, {"number": "1", "year": 30})
        await app.tick()
    assert question.answers[0].data == Card(number="1", year=30)


async def test_an_answer_that_is_none_of_the_choices_is_refused(make_app: Any, runs: Any) -> None:
    question = Question(model=Literal["red", "blue"])
    async with make_app(question.workflow, worker=False) as app:
        handle = await parked(app, question.workflow)
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(InvalidInput):
            await app.answer(handle.id, "green")
        assert await runs.find_one({"_id": handle.id}) == before
        await app.answer(handle.id, "red")
        await app.tick()
    assert question.answers[0].data == "red"


async def test_a_token_still_opens_its_question_after_a_misfit(make_app: Any) -> None:
    tokens: list[str] = []
    question = Question(model=list[int], on_token=tokens.append)
    async with make_app(question.workflow, worker=False) as app, make_app(worker=False) as stranger:
        handle = await parked(app, question.workflow)
        with contextlib.suppress(InvalidInput):
            await stranger.answer(tokens[0], ["text"])
        await app.tick()
        assert await handle.status() == "waiting"
        await stranger.answer(tokens[0], [1])
        await app.tick()
        assert await handle.result("5s") == "answered"
    assert question.answers[0].data == [1]
    assert set(tokens) == {tokens[0]}


async def test_an_approval_is_no_question_and_a_question_no_wait(make_app: Any) -> None:
    question = Question()
    async with make_app(question.workflow, worker=False) as app:
        handle = await parked(app, question.workflow)
        for verb in (app.approve, app.resume):
            with pytest.raises(NotWaiting):
                await verb(handle.id)
        assert len((await handle.get()).waits) == 1


async def test_a_question_in_a_loop_is_asked_each_turn_any_number_of_turns(make_app: Any) -> None:
    turns, entered = 6, []
    wf: Workflow[Any, Any, Any] = Workflow("turns")

    @wf.step
    async def work(ctx: Context[Any]) -> list[str]:
        entered.append(1)

        async def turn(codes: list[str], i: int) -> Continue[list[str]] | Done[list[str]]:
            answer = await ctx.ask(f"code {i}?", model=str)
            codes = [*codes, answer.data]
            return Done(codes) if answer.data == "stop" else Continue(codes)

        return await ctx.loop("turns", [], turn)

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        for i in range(turns):
            (wait,) = await app.pending_waits("question", run_id=handle.id)
            assert wait.reason == f"code {i}?"
            await app.answer(handle.id, "stop" if i == turns - 1 else f"c{i}")
            await app.tick()
        assert await handle.result("5s") == ["c0", "c1", "c2", "c3", "c4", "stop"]
    assert len(entered) == turns + 1


async def test_a_wrong_code_is_asked_for_again_over_restarts(make_app: Any) -> None:
    tried: list[str] = []
    wf: Workflow[Any, Any, Any] = Workflow("code")

    @wf.step
    async def sign_in(ctx: Context[Any]) -> str:
        while True:
            answer = await ctx.ask("the code?", model=str)
            await ctx.call(f"try {answer.data}", tried.append, answer.data)
            if answer.data == "right":
                return str(answer.by)

    handle = None
    for code in ("wrong", "also wrong", "right"):
        async with make_app(wf) as app:
            handle = app.handle(handle.id) if handle else await app.start(wf)
            await status_of(handle, "waiting")
            await eventually(lambda: app.pending_waits("question"))
            await app.answer(handle.id, code, by=code)
            if code == "right":
                assert await handle.result("20s") == "right"
            else:
                await eventually(lambda: tried and tried[-1] == code)  # noqa: B023 - looked at within this turn
    assert tried == ["wrong", "also wrong", "right"]
