"""An order as a saga: what was set aside and paid is given back when the parcel cannot be sent.

Run ``python examples/order_saga.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from streamline import Context, NonRetriableError, RetryPolicy, Streamline, Workflow


class Order(BaseModel):
    order_id: str
    amount: int
    country: str


class Receipt(BaseModel):
    charge_id: str
    amount: int


class Bank:
    """Stands in for a bank: it books a key once, however often it is asked, and does not answer every time."""

    def __init__(self) -> None:
        self.bookings: dict[str, int] = {}
        self.requests = 0

    async def book(self, key: str, amount: int) -> str:
        self.requests += 1
        if self.requests % 2:
            raise ConnectionError("the bank is not there")
        self.bookings.setdefault(key, amount)
        return f"booking-{list(self.bookings).index(key) + 1}"


bank = Bank()
reserved: set[str] = set()

orders = Workflow("order", input=Order, retry=RetryPolicy(max_attempts=5, delay="20ms"))


@orders.step
async def reserve(ctx: Context[Order]) -> str:
    reserved.add(ctx.input.order_id)
    return ctx.input.order_id


@reserve.compensate
async def release(ctx: Context[Order], reservation: str) -> None:  # given what the step returned
    reserved.discard(reservation)


@orders.step
async def charge(ctx: Context[Order]) -> Receipt:
    charge_id = await bank.book(ctx.idempotency_key(), ctx.input.amount)
    return Receipt(charge_id=charge_id, amount=ctx.input.amount)


@charge.compensate(max_attempts=20)
async def refund(ctx: Context[Order], receipt: Receipt) -> None:
    # The key is another one than that of the charge, and the same at every attempt: the money comes back once.
    await bank.book(ctx.idempotency_key(), -receipt.amount)


@orders.step
async def ship(ctx: Context[Order]) -> str:
    if ctx.input.country == "Atlantis":
        raise NonRetriableError("no carrier goes to Atlantis")
    return f"parcel to {ctx.input.country}, paid by {ctx.output(charge).charge_id}"


async def main() -> None:
    async with Streamline(workflows=[orders]) as app:
        for order in (
            Order(order_id="A-1", amount=30, country="Norway"),
            Order(order_id="A-2", amount=50, country="Atlantis"),
        ):
            run = await (await app.start(orders, order, run_id=order.order_id)).wait(timeout="30s")
            print(f"{run.id} {run.status}: {run.output or (run.error and run.error.message)}")
    print(f"bookings: {list(bank.bookings.values())}, reserved: {sorted(reserved)}")


if __name__ == "__main__":
    asyncio.run(main())
