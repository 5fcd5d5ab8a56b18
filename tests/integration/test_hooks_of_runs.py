"""``ctx.create_hook`` and ``app.resume_hook``: one token, one call, the same at every re-entry and in every process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from streamline import Context, Streamline, Workflow
from streamline.errors import HookNotFound, InvalidInput
from tests.clocks import MovableClock
from tests.waiting import status_of

PATIENT = {"timeout": "20s"}


class Paid(BaseModel):
    amount: int


class Hooked:
    """A workflow that opens a hook and waits for it."""

    def __init__(self, *, expires: Any = None, **rules: Any) -> None:
        self.tokens: list[str] = []
        self.errors: list[Any] = []
        self.workflow: Workflow[Any, Any, Any] = Workflow("hooked", retention={"done": "1h"})

        @self.workflow.step(max_attempts=1)
        async def pay(ctx: Context[Any]) -> Any:
            hook = await ctx.create_hook("pay", expires=expires)
            self.tokens.append(hook.token)
            assert hook.path == f"/hooks/{hook.token}"
            assert hook.token not in repr(hook)
            try:
                return await hook.wait(**rules)
            except Exception as error:
                self.errors.append(error)
                raise


async def parked(app: Streamline, workflow: Workflow[Any, Any, Any]) -> Any:
    handle = await app.start(workflow)
    assert await app.tick() == 1
    assert await handle.status() == "waiting"
    return handle


async def test_a_hook_is_called_by_its_token_and_its_payload_reaches_the_handler(make_app: Any, runs: Any) -> None:
    hooked = Hooked()
    async with make_app(hooked.workflow, worker=False) as app, make_app(worker=False) as other:
        handle = await parked(app, hooked.workflow)
        (wait,) = (await handle.get()).waits
        assert (wait.kind, wait.key) == ("hook", "pay")
        assert await other.resume_hook(hooked.tokens[0], {"paid": True}) == handle.id
        await app.tick()
        assert await handle.result("5s") == {"paid": True}
    assert len(set(hooked.tokens)) == 1
    assert len(hooked.tokens) == 2
    assert "hooks" not in await runs.find_one({"_id": handle.id})


@pytest.mark.parametrize("payload", [None, False, 0, "", [], {}])
async def test_a_falsy_payload_arrives_as_it_was_sent(make_app: Any, payload: Any) -> None:
    hooked = Hooked(default="d")
    async with make_app(hooked.workflow, worker=False) as app:
        handle = await parked(app, hooked.workflow)
        await app.resume_hook(hooked.tokens[0], payload)
        await app.tick()
        assert await handle.result("5s") == payload


async def test_a_hook_is_for_one_call(make_app: Any, runs: Any) -> None:
    hooked = Hooked()
    async with make_app(hooked.workflow, worker=False) as app:
        handle = await parked(app, hooked.workflow)
        await app.resume_hook(hooked.tokens[0], "first")
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(HookNotFound):
            await app.resume_hook(hooked.tokens[0], "second")
        assert await runs.find_one({"_id": handle.id}) == before
        await app.tick()
        assert await handle.result("5s") == "first"


async def test_a_hook_can_be_called_before_it_is_waited_for(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("early")

    async def call(app: Streamline, token: str) -> str:
        return await app.resume_hook(token, "early")

    @wf.step
    async def pay(ctx: Context[Any]) -> Any:
        hook = await ctx.create_hook("pay")
        await ctx.call("tell", call, app, hook.token)
        await ctx.sleep("1h")
        return await hook.wait()

    clock = MovableClock()
    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        await app.tick()
        clock.move(hours=2)
        await app.tick()
        assert await handle.result("5s") == "early"


async def test_a_failed_attempt_keeps_its_hook(make_app: Any) -> None:
    tokens, clock = [], MovableClock()
    wf: Workflow[Any, Any, Any] = Workflow("retried")

    @wf.step(max_attempts=3)
    async def pay(ctx: Context[Any]) -> Any:
        hook = await ctx.create_hook("pay")
        tokens.append(hook.token)
        if ctx.attempt == 1:
            raise ValueError
        return await hook.wait()

    async with make_app(wf, worker=False, clock=clock) as app:
        handle = await app.start(wf)
        await app.tick()
        await app.resume_hook(tokens[0], "between attempts")
        clock.move(minutes=5)
        await app.tick()
        assert await handle.result("5s") == "between attempts"
    assert len(set(tokens)) == 1


async def test_each_hook_has_a_token_of_its_own(make_app: Any) -> None:
    tokens = []
    wf: Workflow[Any, Any, Any] = Workflow("many")

    @wf.step
    async def pay(ctx: Context[Any]) -> Any:
        hooks = [await ctx.create_hook(key) for key in ("a", "b")]

        async def item(_: int, i: int) -> str:
            return (await ctx.create_hook("a")).token

        tokens.extend([hook.token for hook in hooks] + list(await ctx.each("items", range(3), item)))

    async with make_app(wf) as app:
        for _ in range(4):
            await app.run(wf, **PATIENT)
    assert len(set(tokens)) == 20
    assert {len(token) for token in tokens} == {43}


async def test_a_rewound_step_opens_another_hook_and_the_old_token_is_worthless(make_app: Any) -> None:
    hooked = Hooked()
    async with make_app(hooked.workflow, worker=False) as app:
        handle = await parked(app, hooked.workflow)
        await handle.rewind("pay")
        await app.tick()
        old, new = hooked.tokens
        assert old != new
        with pytest.raises(HookNotFound):
            await app.resume_hook(old, "old")
        await app.resume_hook(new, "new")
        await app.tick()
        assert await handle.result("5s") == "new"


async def test_a_hook_that_nobody_calls_before_it_expires_raises_in_the_handler(make_app: Any) -> None:
    clock, hooked = MovableClock(), Hooked(expires="1h")
    async with make_app(hooked.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, hooked.workflow)
        clock.move(hours=1, minutes=1)
        with pytest.raises(HookNotFound):
            await app.resume_hook(hooked.tokens[0], "late")
        await app.tick()
        run = await handle.get()
        with pytest.raises(HookNotFound):
            await app.resume_hook(hooked.tokens[0], "later")
    assert (run.status, run.error.code) == ("failed", "hook.expired")
    assert [type(error).__name__ for error in hooked.errors] == ["HookExpired"]
    assert hooked.errors[0].http_status == 410


async def test_a_hook_is_waited_for_no_longer_than_the_handler_says(make_app: Any) -> None:
    clock, hooked = MovableClock(), Hooked(expires="9h", timeout="1h")
    async with make_app(hooked.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, hooked.workflow)
        clock.move(minutes=30)
        assert await app.tick() == 0
        clock.move(hours=1)
        await app.tick()
        run = await handle.get()
        with pytest.raises(HookNotFound):
            await app.resume_hook(hooked.tokens[0], "late")
    assert run.error.code == "wait.timeout"


async def test_a_hook_expires_although_the_handler_would_wait_longer(make_app: Any) -> None:
    clock, hooked = MovableClock(), Hooked(expires="1h", timeout="9h")
    async with make_app(hooked.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, hooked.workflow)
        clock.move(hours=2)
        await app.tick()
        run = await handle.get()
    assert run.error.code == "hook.expired"


@pytest.mark.parametrize("limit", [{"expires": "1h"}, {"timeout": "1h"}], ids=["expires", "timeout"])
async def test_a_default_takes_the_place_of_a_call_that_never_comes(make_app: Any, limit: Any) -> None:
    clock, hooked = MovableClock(), Hooked(default=None, **limit)
    async with make_app(hooked.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, hooked.workflow)
        clock.move(hours=2)
        await app.tick()
        run = await handle.get()
    assert (run.status, run.output) == ("done", None)


async def test_a_handler_that_waits_twice_for_a_hook_is_told(make_app: Any) -> None:
    wf: Workflow[Any, Any, Any] = Workflow("twice")
    tokens = []

    @wf.step(max_attempts=1)
    async def pay(ctx: Context[Any]) -> Any:
        hook = await ctx.create_hook("pay")
        tokens.append(hook.token)
        await hook.wait()
        return await hook.wait()

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        await app.resume_hook(tokens[0])
        await app.tick()
        run = await handle.get()
    assert (run.status, run.error.code) == ("failed", "hook.already_used")


async def test_a_model_is_what_the_handler_gets(make_app: Any) -> None:
    got = []
    wf: Workflow[Any, Any, Any] = Workflow("typed")

    @wf.step(max_attempts=1)
    async def pay(ctx: Context[Any]) -> None:
        hook = await ctx.create_hook("pay")
        got.append(hook.token)
        got.append(await hook.wait(model=Paid))

    async with make_app(wf, worker=False) as app:
        handle = await parked(app, wf)
        await app.resume_hook(got[0], {"amount": 5})
        await app.tick()
        assert await handle.status() == "done"
        assert got[-1] == Paid(amount=5)
        other = await parked(app, wf)
        with pytest.raises(InvalidInput):
            await app.resume_hook(got[-1], {"amount": "many"})
        assert await other.status() == "waiting"
        await app.resume_hook(got[-1], {"amount": 6})
        await app.tick()
        assert got[-1] == Paid(amount=6)


async def test_one_of_many_callers_from_several_apps_wins(make_app: Any, runs: Any) -> None:
    hooked = Hooked()
    async with make_app(hooked.workflow) as app, make_app(worker=False) as one, make_app(worker=False) as two:
        handle = await app.start(hooked.workflow)
        await status_of(handle, "waiting")
        callers = [app, one, two]
        calls = (callers[i % 3].resume_hook(hooked.tokens[0], i) for i in range(20))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        winners = [i for i, answer in enumerate(answers) if answer == handle.id]
        assert await handle.result("20s") == winners[0]
    assert len(winners) == 1
    assert {type(answer) for i, answer in enumerate(answers) if i not in winners} == {HookNotFound}
    events = (await runs.find_one({"_id": handle.id}))["events"]
    assert [event["type"] for event in events].count("wait.answered") == 1


@pytest.mark.parametrize("case", ["unknown", "used", "expired", "noticed", "finished", "cancelled", "run id", "odd"])
async def test_a_stranger_cannot_tell_why_a_token_opens_nothing(make_app: Any, case: str) -> None:
    clock, hooked = MovableClock(), Hooked(expires="1h")
    async with make_app(hooked.workflow, worker=False, clock=clock) as app:
        handle = await parked(app, hooked.workflow)
        token: Any = hooked.tokens[0]
        if case in ("used", "finished"):
            await app.resume_hook(token)
        if case in ("expired", "noticed"):
            clock.move(hours=2)
        if case in ("noticed", "finished"):
            await app.tick()
        if case == "cancelled":
            await handle.cancel()
        shown = {"unknown": "A" * 43, "run id": handle.id, "odd": {"$gt": ""}}.get(case, token)
        for payload in (None, {"a": 1}):
            with pytest.raises(HookNotFound) as caught:
                await app.resume_hook(shown, payload)
            assert str(caught.value) == "the token opens nothing"
            assert (caught.value.code, caught.value.http_status, caught.value.field) == ("hook.not_found", 404, "token")


@pytest.mark.parametrize("shown", ["", "x", None, 5, b"x" * 43, "A" * 42, "A" * 44, "\ud800" * 43, "a\0" * 21 + "a"])
async def test_what_is_no_token_opens_nothing(make_app: Any, shown: Any) -> None:
    async with make_app(worker=False) as app:
        with pytest.raises(HookNotFound):
            await app.resume_hook(shown)


async def test_nothing_like_the_token_opens_the_hook(make_app: Any) -> None:
    hooked = Hooked()
    async with make_app(hooked.workflow, worker=False) as app:
        handle = await parked(app, hooked.workflow)
        token = hooked.tokens[0]
        for near in (token[:-1] + ("A" if token[-1] != "A" else "E"), token.swapcase(), token[::-1], token[1:] + "A"):
            with pytest.raises(HookNotFound):
                await app.resume_hook(near)
        assert len((await handle.get()).waits) == 1


PROCESS = """
import asyncio, json, sys
from streamline import Streamline, Workflow

wf = Workflow("hooked")

@wf.step
async def pay(ctx):
    hook = await ctx.create_hook("pay")
    print(json.dumps({"run": ctx.run_id, "token": hook.token}), flush=True)
    return await hook.wait()

async def main(uri, database, secret, run_id, *tenant):
    async with Streamline(uri, database=database, workflows=[wf], secret=secret) as app:
        verbs = app.tenant(*tenant) if tenant else app
        handle = verbs.handle(run_id) if run_id else await verbs.start(wf)
        if run_id:
            print(json.dumps({"output": await handle.result("20s")}), flush=True)
        while not run_id and (await handle.status()) != "waiting":
            await asyncio.sleep(0.01)

asyncio.run(main(*sys.argv[1:]))
"""


async def in_another_process(*arguments: str) -> list[Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROCESS,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ,
        cwd=Path(__file__).parents[2],
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.slow
async def test_the_token_is_the_same_in_another_process_with_the_same_secret(
    make_app: Any, mongo_uri: str, database_name: str, tenant_id: str | None
) -> None:
    tenant = () if tenant_id is None else (tenant_id,)
    first = await in_another_process(mongo_uri, database_name, "the secret", "", *tenant)
    async with make_app(worker=False) as asking:
        assert await asking.resume_hook(first[0]["token"], "called") == first[0]["run"]
    again = await in_another_process(mongo_uri, database_name, "the secret", first[0]["run"], *tenant)
    assert [line["token"] for line in again if "token" in line] == [first[0]["token"]]
    assert again[-1] == {"output": "called"}


async def test_the_token_is_the_same_after_a_restart(make_app: Any) -> None:
    hooked = Hooked()
    async with make_app(hooked.workflow, secret="the secret") as app:
        handle = await app.start(hooked.workflow)
        await status_of(handle, "waiting")
    async with make_app(hooked.workflow, secret=b"the secret") as app:
        await app.resume_hook(hooked.tokens[0], "called")
        assert await app.handle(handle.id).result("20s") == "called"
    assert len(hooked.tokens) == 2
    assert len(set(hooked.tokens)) == 1
