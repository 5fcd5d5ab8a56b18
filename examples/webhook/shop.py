"""A payment that is confirmed by a webhook: a real HTTP server calls back, and the order goes on.

Run ``python examples/webhook/shop.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from provider import JsonHandler, Provider, post, serving
from pydantic import BaseModel

from streamline import Context, Streamline, StreamlineError, Workflow


class Order(BaseModel):
    amount: int
    shop: str  # where this app is reached
    provider: str  # where the payment provider is


class Paid(BaseModel):
    status: Literal["paid", "refused"]
    amount: int


orders = Workflow("paid-order", input=Order)


@orders.step
async def payment(ctx: Context[Order]) -> Paid:
    hook = await ctx.create_hook("paid", expires="1h")
    # Called once, however often this handler is entered: the customer sees one payment.
    await ctx.call("begin", begin_payment, ctx.input, ctx.input.shop + hook.path)
    return await hook.wait(model=Paid)  # type: ignore[no-any-return]  # parked; the process could end here


@orders.step
async def ship(ctx: Context[Order]) -> str:
    return f"shipped, {ctx.output(payment).amount} paid"


def begin_payment(order: Order, callback: str) -> str:  # a plain function runs in a thread, so it may block
    status, answer = post(f"{order.provider}/payments", {"amount": order.amount, "callback": callback})
    assert status == 202, answer
    return str(answer["payment_id"])


def webhooks(app: Streamline) -> type[JsonHandler]:
    """Return a handler for ``POST /hooks/<token>``; with FastAPI it would be a route of three lines."""
    loop = asyncio.get_running_loop()

    class Webhooks(JsonHandler):
        def do_POST(self) -> None:  # noqa: N802 - http.server's name
            token = self.path.removeprefix("/hooks/")
            calling = asyncio.run_coroutine_threadsafe(app.resume_hook(token, self.body()), loop)
            try:
                calling.result()
            except StreamlineError as error:  # unknown, used and expired tokens look alike to a stranger
                self.answer(error.http_status, {"code": error.code})
            else:
                self.answer(200, {"code": "thanks"})

    return Webhooks


async def main() -> None:
    async with (
        Streamline(workflows=[orders]) as app,
        serving(webhooks(app)) as shop,
        serving(Provider) as provider,
    ):
        run = await app.start(orders, Order(amount=42, shop=shop.url, provider=provider.url))
        print(await run.result(timeout="30s"))
        guess = await asyncio.to_thread(post, f"{shop.url}/hooks/guess", {"status": "paid", "amount": 1})
        print(f"a stranger's guess is answered {guess[0]} {guess[1]['code']}")


if __name__ == "__main__":
    asyncio.run(main())
