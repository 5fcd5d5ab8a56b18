"""Compensations, groups, declared steps, hooks and guards: what belongs to a step is of that step's types."""

from dataclasses import dataclass
from typing import Any, assert_type

from streamline import Context, Decision, Hooks, RetryPolicy, Workflow, WorkflowStep


@dataclass
class Receipt:
    charge_id: str


class Timings(Hooks):
    def before(self, ctx: Any, branch: str | None) -> None: ...

    async def after(self, ctx: Any, branch: str | None, output: Any) -> None: ...


async def guard(ctx: Context[int], branch: str | None) -> bool:
    return True


wf = Workflow(
    "undoing",
    input=int,
    run_timeout="1h",
    start_by="5m",
    compensate_on={"failed", "cancelled"},
    hooks=[Timings()],
    guards=[guard],
)
Workflow("wrong", run_timeout=[])  # expect-error: arg-type / call-overload / reportArgumentType / reportCallIssue
Workflow("wrong", guards=["no"])  # expect-error: list-item / call-overload / reportArgumentType / reportCallIssue


@wf.step(group="money")
async def charge(ctx: Context[int]) -> Receipt:
    return Receipt("1")


@wf.step(group="money")
def note(ctx: Context[int]) -> str:
    return "x"


@charge.compensate
async def refund(ctx: Context[int], receipt: Receipt) -> None:
    assert_type(receipt.charge_id, str)


@note.compensate(retry=RetryPolicy(max_attempts=3), timeout="5s")
def forget(ctx: Context[int], text: str) -> None: ...


@charge.compensate  # expect-error: arg-type / call-overload / reportArgumentType / reportCallIssue / untyped
async def of_another(ctx: Context[int], text: str) -> None: ...


@charge.compensate(timeout="5s")  # expect-error: arg-type / reportArgumentType / reportCallIssue / untyped
async def of_another_too(ctx: Context[int], text: str) -> None: ...


@charge.compensate  # expect-error: arg-type / call-overload / reportArgumentType / reportCallIssue / untyped
async def without_output(ctx: Context[int]) -> None: ...


@charge.compensate(skip_if=print)  # expect-error: call-overload / reportCallIssue / untyped
async def with_a_step_rule(ctx: Context[int], receipt: Receipt) -> None: ...


@wf.step(group=5)  # expect-error: call-overload / reportArgumentType / reportCallIssue / untyped
async def numbered_group(ctx: Context[int]) -> None: ...


@wf.step(transactional=True)
async def in_a_transaction(ctx: Context[int]) -> str:
    return str(ctx.session)


@wf.step(transactional="yes")  # expect-error: call-overload / reportArgumentType / reportCallIssue / untyped
async def in_no_transaction(ctx: Context[int]) -> None: ...


assert_type(in_a_transaction, WorkflowStep[str])


async def submit(ctx: Context[int]) -> int:
    return ctx.input


async def check(ctx: Context[int], job: int) -> str | None:
    return None


async def check_text(ctx: Context[int], job: str) -> str | None:
    return None


title = wf.wait_step("title", reason="the title?", model=str, timeout="30d", on_timeout="skip")
assert_type(title, WorkflowStep[Any])
assert_type(wf.event_step("paid", event="paid", match={"book": 1}, on_timeout=title), WorkflowStep[Any])
assert_type(wf.approval_step("sign", reason="print?", approvers=["ann"]), WorkflowStep[Decision])
assert_type(wf.sleep_step("pause", "2h"), WorkflowStep[None])
assert_type(wf.poll_step("printed", submit=submit, check=check, every="5s"), WorkflowStep[Any])
wf.wait_step("no-reason")  # expect-error: call-arg / reportCallIssue
wf.wait_step("what", reason="x", on_timeout="forget")  # expect-error: arg-type / reportArgumentType
wf.approval_step("who", reason="x", approvers=5)  # expect-error: arg-type / reportArgumentType
wf.poll_step("job", submit=submit, check=check_text, every=1)  # expect-error: arg-type / misc / reportArgumentType
