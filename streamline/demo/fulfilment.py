"""The workflow of the demonstration: an order is reserved, charged, invoiced, shipped and confirmed."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Literal, Self
from zlib import crc32

from pydantic import BaseModel, Field, model_validator

from streamline import Context, RetryPolicy, Workflow
from streamline.demo import payment_client

PAUSE = 0.25  # seconds that the warehouse and the mail server take to answer
COLLECTION = "500ms"  # how long a parcel waits for its carrier

Currency = Literal["CHF", "EUR", "GBP", "USD"]


class Customer(BaseModel):
    name: str = Field(min_length=1)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")


class Item(BaseModel):
    sku: str = Field(min_length=1)
    quantity: int = Field(ge=1)
    unit_price: int = Field(ge=1)


class Order(BaseModel):
    """A line of the order file; money is counted in cents."""

    order_id: str = Field(pattern=r"^SO-\d+$")
    placed_at: datetime
    customer: Customer
    items: list[Item] = Field(min_length=1)
    amount: int = Field(ge=1)
    currency: Currency

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.amount != sum(item.quantity * item.unit_price for item in self.items):
            raise ValueError("amount has to be the sum of the items")
        return self


class Reservation(BaseModel):
    warehouse: str
    pieces: int


class Charge(BaseModel):
    charge_id: str
    amount: int
    currency: Currency


class Invoice(BaseModel):
    number: str
    net: int
    tax: int


class Parcel(BaseModel):
    tracking: str


fulfilment = Workflow("fulfilment", input=Order)


@fulfilment.step
async def reserve(ctx: Context[Order]) -> Reservation:
    """Put the pieces aside."""
    await asyncio.sleep(PAUSE)
    warehouse = ("Antwerp", "Basel", "Leeds")[_number(ctx.input.items[0].sku) % 3]
    return Reservation(warehouse=warehouse, pieces=sum(item.quantity for item in ctx.input.items))


@fulfilment.step(retry=RetryPolicy(max_attempts=8, delay="200ms", max_delay="1s"), timeout="10s")
def charge(ctx: Context[Order]) -> Charge:
    """Charge the customer: a blocking call, so a plain function, which runs in a thread.

    The key is the same at every attempt, also at one by another worker: the service charges once, however often it
    is asked.
    """
    order = ctx.input
    charge_id = payment_client.charge(ctx.idempotency_key(), order.order_id, order.amount, order.currency)
    return Charge(charge_id=charge_id, amount=order.amount, currency=order.currency)


@fulfilment.step
async def invoice(ctx: Context[Order]) -> Invoice:
    """Write the invoice of what was charged."""
    charged = ctx.output(charge)
    net = round(charged.amount / 1.2)
    return Invoice(number=f"INV-{ctx.input.order_id[3:]}", net=net, tax=charged.amount - net)


@fulfilment.step
async def ship(ctx: Context[Order]) -> Parcel:
    """Hand the parcel over once the carrier is there; meanwhile the run is parked and costs the worker nothing."""
    await ctx.sleep(COLLECTION)
    return Parcel(tracking=f"{ctx.output(reserve).warehouse[:2].upper()}{_number(ctx.input.order_id):010d}")


@fulfilment.step
async def notify(ctx: Context[Order]) -> str:
    """Tell the customer."""
    await asyncio.sleep(PAUSE)
    return f"{ctx.input.customer.email}: {ctx.output(invoice).number}, parcel {ctx.output(ship).tracking}"


def _number(text: str) -> int:
    return crc32(text.encode())
