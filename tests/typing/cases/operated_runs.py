"""Answering and operating runs: tokens, decisions, waits, rewinds and forks."""

from typing import Any, assert_type

from streamline import Context, Decision, Progress, Run, RunHandle, Settings, Streamline, Wait, Workflow

wf = Workflow("operated", input=int, output=str)


@wf.step
async def only(ctx: Context[int]) -> str:
    return "x"


app = Streamline(workflows=[wf], secret=b"0123456789abcdef", settings=Settings(max_jumps=5))
Streamline(secret=5)  # expect-error: arg-type / reportArgumentType
Settings(max_jumps="5")  # expect-error: arg-type / reportArgumentType


def decide(wait: Wait) -> bool:
    return wait.reason == "go?"


async def decide_slowly(wait: Wait) -> Decision:
    return Decision("approved", by="ann")


def undecided(run: Run) -> bool:
    return True


async def start() -> None:
    await app.start(wf, 1, start_by="5m", timeout="1h")
    await app.start_many(wf, [1, 2], start_by="5m", timeout="1h")
    assert_type(await app.run(wf, 1, on_approval=decide, start_by="5m"), str)
    assert_type(await app.run(wf, 1, on_approval=decide_slowly), str)
    await app.run(wf, 1, on_approval=undecided)  # expect-error: call-overload / arg-type / reportArgument / reportCall
    await app.start(wf, 1, on_approval=decide)  # expect-error: call-overload / reportCallIssue


async def answer(token: str, run_id: str) -> None:
    assert_type(await app.resume_hook(token, {"any": "thing"}), str)
    await app.resume(run_id, 5, key="wait#1", by="ann")
    await app.approve(token, {"any": "thing"}, by="ann", reason="fine")
    await app.reject(run_id, reason="no", by="ann", key="approval#1")
    await app.answer(run_id, 5, by="ann")
    await app.withdraw(run_id, reason="late")
    await app.approve()  # expect-error: call-arg / reportCallIssue
    await app.resume_hook(5)  # expect-error: arg-type / reportArgumentType
    assert_type(await app.send_event("paid", 5, run_id=run_id), int)
    assert_type(await app.send_event("paid", 5, match={"input.id": 1}, start_if_missing=(wf, 1)), int)
    await app.send_event("paid", 5, match=7)  # expect-error: arg-type / reportArgumentType
    waits = await app.pending_waits("approval", workflow=wf, run_id=run_id, limit=5)
    assert_type(waits, list[Wait])
    assert_type(waits[0].approvers, tuple[str, ...] | None)
    waits[0].token  # expect-error: attr-defined / reportAttributeAccessIssue


async def operate(run_id: str, handle: RunHandle[str]) -> None:
    await app.rewind(run_id, only, by="ann")
    await app.rewind(run_id, "only")
    await app.rewind(run_id)  # expect-error: call-arg / reportCallIssue
    await app.rewind(run_id, wf)  # expect-error: arg-type / reportArgumentType
    assert_type(await app.fork(run_id, only, state={"n": 1}, new_run_id="mine"), RunHandle[Any])
    await app.fork(run_id, only.fn)  # expect-error: arg-type / reportArgumentType / no-any
    await app.pin_output(run_id, only, 3)
    await app.pin_output(run_id, only, "3")  # expect-error: arg-type / reportArgumentType
    await handle.resume(5, key="wait#1", by="ann")
    await handle.rewind(only, by="ann")
    await handle.rewind(5)  # expect-error: arg-type / reportArgumentType
    assert_type(await handle.progress(), Progress | None)


def look(run: Run) -> None:
    assert_type(run.waits, tuple[Wait, ...])
    assert_type(run.forked_from, str | None)
    compensation = run.step("only").compensation
    assert compensation is not None
    assert_type(compensation.attempt, int)
    compensation.nothing  # expect-error: attr-defined / reportAttributeAccessIssue
    if run.status == "compensation_failed" and run.parent is not None:
        assert_type(run.parent["run_id"], Any)
