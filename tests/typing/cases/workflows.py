"""Declaring workflows: inputs, states and outputs are known, and mistakes are errors."""

from typing import Any, assert_type

from pydantic import BaseModel

from streamline import Context, RetryPolicy, Workflow, WorkflowStep


class Order(BaseModel):
    order_id: str
    amount: int


class Receipt(BaseModel):
    charge_id: str


class Basket(BaseModel):
    total: int = 0


orders = Workflow("order", version="1.0.0", input=Order)


@orders.step
async def reserve(ctx: Context[Order]) -> str:
    assert_type(ctx.input, Order)
    ctx.input.amout  # expect-error: attr-defined / reportAttributeAccessIssue
    return f"reservation-{ctx.input.order_id}"


@orders.step(retry=RetryPolicy(max_attempts=5, delay="1s"), timeout="30s")
async def charge(ctx: Context[Order]) -> Receipt:
    assert_type(ctx.output(reserve), str)
    return Receipt(charge_id=ctx.output(reserve))


@orders.step
def ship(ctx: Context[Order]) -> dict[str, str]:
    receipt = ctx.output(charge)
    assert_type(receipt, Receipt)
    receipt.charge  # expect-error: attr-defined / reportAttributeAccessIssue
    wrong: int = ctx.output(reserve)  # expect-error: arg-type / assignment / reportAssignmentType / reportArgumentType
    return {"id": receipt.charge_id}


@orders.step("thank-you", max_attempts=1, on_error="skip", skip_if=lambda ctx: ctx.input.amount == 0)
async def thank(ctx: Context[Order]) -> None:
    ctx.output("ship")  # expect-error: arg-type / reportArgumentType


@orders.step(id="archive", run_if=lambda ctx: ctx.output(charge).charge_id != "")
def archive(ctx: Context[Order]) -> list[int]:
    return [1]


assert_type(reserve, WorkflowStep[str])
assert_type(charge, WorkflowStep[Receipt])
assert_type(ship, WorkflowStep[dict[str, str]])
assert_type(thank, WorkflowStep[None])
assert_type(archive, WorkflowStep[list[int]])
reserve.nothing  # expect-error: attr-defined / reportAttributeAccessIssue

# A handler of another input does not fit.


@orders.step  # expect-error: arg-type / call-overload / untyped-decorator / reportCallIssue / reportArgumentType
async def foreign(ctx: Context[Receipt]) -> None: ...


@orders.step(timeout="5s")  # expect-error: arg-type / call-overload / untyped-decorator / reportCall / reportArg
async def foreign_too(ctx: Context[Receipt]) -> None: ...


@orders.step  # expect-error: arg-type / call-overload / untyped-decorator / type-var / reportCall / reportArgument
async def two_arguments(ctx: Context[Order], more: int) -> None: ...


# Options are checked.


@orders.step(retries=3)  # expect-error: call-overload / untyped-decorator / reportCallIssue
async def misspelt(ctx: Context[Order]) -> None: ...


@orders.step(on_error="ignore")  # expect-error: call-overload / untyped-decorator / reportCallIssue / reportArg
async def tolerant(ctx: Context[Order]) -> None: ...


@orders.step(skip_if=lambda ctx: ctx.input.nothing)  # expect-error: attr-defined / reportAttributeAccessIssue
async def skipping(ctx: Context[Order]) -> None: ...


RetryPolicy(max_attempts="3")  # expect-error: arg-type / reportArgumentType
RetryPolicy(backoff="quadratic")  # expect-error: arg-type / reportArgumentType
RetryPolicy(backoff=1.5)
RetryPolicy(retry_on=(OSError, ValueError))
Workflow("x", verion="1.0.0")  # expect-error: call-arg / call-overload / reportCallIssue
Workflow(5)  # expect-error: arg-type / reportArgumentType

# Keys and results are of the workflow's types.

Workflow("keyed", input=Order, idempotency_key=lambda order: order.order_id)
Workflow("k", input=Order, idempotency_key=lambda order: order.no)  # expect-error: attr-defined / reportAttribute
Workflow("k", input=Order, idempotency_key=lambda order: order.amount)  # expect-error: type / misc / reportArgument

# Without types, everything goes.

loose: Workflow[Any, Any, Any] = Workflow("loose")


@loose.step
async def anything(ctx: Context) -> int:
    assert_type(ctx.input, Any)
    ctx.input.whatever
    ctx.state["x"] = 1
    return 1


@loose.step
def typed_anyway(ctx: Context[Any, Any]) -> str:
    assert_type(ctx.output(anything), int)
    return "x"


bare = Workflow("bare")


@bare.step
async def of_bare(ctx: Context) -> int:
    return 1


assert_type(of_bare, WorkflowStep[int])

# State is typed, too.

baskets = Workflow("basket", input=Order, state=Basket)


@baskets.step
async def fill(ctx: Context[Order, Basket]) -> None:
    assert_type(ctx.state, Basket)
    ctx.state.total += ctx.input.amount
    ctx.state.sum  # expect-error: attr-defined / reportAttributeAccessIssue
    ctx.state = 5  # expect-error: assignment / reportAttributeAccessIssue
    await ctx.save()


@baskets.step
async def forgets_the_state(ctx: Context[Order]) -> None: ...
