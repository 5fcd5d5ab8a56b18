"""A shop tells a customer's system what becomes of orders: signed webhooks, tried again until they are taken.

Run ``python examples/webhook/sender.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import ClassVar

from provider import JsonHandler, serving

from streamline import Context, RetryPolicy, Settings, Streamline, StreamlineError, Workflow, verify_webhook

orders = Workflow("told-order", input=int)


@orders.step
async def pay(ctx: Context[int]) -> str:
    await ctx.emit("order.paid", {"amount": ctx.input})
    return "paid"


@orders.step
async def ship(ctx: Context[int]) -> str:
    return "shipped"


class Customer(JsonHandler):
    """``POST /hook`` of the customer: another process, in another place, with the secret and nothing else of ours."""

    secret = ""
    away = True
    seen: ClassVar[set[str]] = set()
    all_seen: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            webhook_id = verify_webhook(body, self.headers.items(), self.secret)
        except StreamlineError as error:
            self.answer(error.http_status, {"code": error.code})
            return
        if Customer.away:
            Customer.away = False
            self.answer(503, {"code": "closed for lunch"})
            return
        if webhook_id not in self.seen:  # a webhook comes at least once
            self.seen.add(webhook_id)
            told = json.loads(body)
            print(f"customer is told: {told['type']}")
            if told["type"] == "run.done":
                self.all_seen.set()
        self.answer(200, {"code": "thanks"})


async def main() -> None:
    logging.getLogger("streamline").setLevel(logging.ERROR)  # a refused delivery is part of the show
    settings = Settings(
        webhook_networks=("127.0.0.0/8",),  # this machine, for the example only: public addresses need no leave
        webhook_retry=RetryPolicy(delay="100ms"),
    )
    async with Streamline(workflows=[orders], settings=settings) as app, serving(Customer) as customer:
        endpoint = await app.webhooks.create("customer", f"{customer.url}/hook", on=["run.done", "order.*"])
        Customer.secret = endpoint.secret  # shown once, here
        run = await app.start(orders, 42)
        await run.result(timeout="30s")
        await asyncio.to_thread(Customer.all_seen.wait, 30)
        print(f"failures since the last success: {(await app.webhooks.get('customer')).failures}")
        await app.webhooks.delete("customer")


if __name__ == "__main__":
    asyncio.run(main())
