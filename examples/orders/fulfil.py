"""A file of orders through five steps: reserve, charge, invoice, ship, notify.

Run ``python examples/orders/fulfil.py``. It uses the database that MONGODB_URI names, or else a private one. To see the
same with several processes, one of which is killed, run ``python -m streamline demo``.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Literal

from payments import PaymentProvider
from pydantic import BaseModel, Field

from streamline import Context, RetryPolicy, RunHandle, Streamline, Workflow
from streamline.errors import InvalidInput

ORDERS = Path(__file__).with_name("orders.jsonl")

payments = PaymentProvider()


class Order(BaseModel):
    order_id: str
    email: str
    sku: str
    amount: int = Field(ge=1)  # cents
    currency: Literal["EUR", "GBP", "USD"]


class Receipt(BaseModel):
    charge_id: str
    amount: int


# The key keeps an order that is started twice, by whomever, from running twice at the same time.
orders = Workflow("order", input=Order, idempotency_key=lambda order: order.order_id)


@orders.step
async def reserve(ctx: Context[Order]) -> str:
    return f"{ctx.input.sku}, set aside for {ctx.input.order_id}"


@orders.step(retry=RetryPolicy(max_attempts=10, delay="50ms", max_delay="1s"), timeout="10s")
async def charge(ctx: Context[Order]) -> Receipt:
    # A step may run more than once. The key is the same each time, so the money moves once.
    charge_id = await payments.charge(ctx.idempotency_key(), ctx.input.amount)
    return Receipt(charge_id=charge_id, amount=ctx.input.amount)


@orders.step
def invoice(ctx: Context[Order]) -> str:  # a plain function runs in a thread, so it may block
    receipt = ctx.output(charge)  # of type Receipt, for the type checker as well
    return f"invoice over {receipt.amount / 100:.2f} {ctx.input.currency}, paid by {receipt.charge_id}"


@orders.step
async def ship(ctx: Context[Order]) -> str:
    await ctx.sleep("200ms")  # parked until the carrier comes; it costs no worker anything
    return f"parcel of {ctx.output(reserve)}"


@orders.step(on_error="skip")  # an order is not lost because a mail is
async def notify(ctx: Context[Order]) -> str:
    return f"to {ctx.input.email}: {ctx.output(invoice)}; {ctx.output(ship)}"


async def start_all(app: Streamline) -> list[RunHandle[object]]:
    started: list[RunHandle[object]] = []
    for number, line in enumerate(ORDERS.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            started.append(await app.start(orders, json.loads(line)))
        except InvalidInput as error:
            print(f"line {number} refused: {error}")
    return started


async def main() -> None:
    async with Streamline(workflows=[orders]) as app:
        started = await start_all(app)
        for run in started:
            print(await run.result(timeout="60s"))
        done = (await app.count_runs(orders)).get("done", 0)
        print(f"{done} orders done, {len(payments.charges)} charges, {payments.requests} requests")


if __name__ == "__main__":
    asyncio.run(main())
