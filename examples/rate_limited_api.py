"""An API that takes six requests a second, and two at a time of a customer, is called as fast as it lets us.

Run ``python examples/rate_limited_api.py``. It uses the database that MONGODB_URI names, or else a private one. Started
in several processes on one database, they keep within the limits together.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque

from pydantic import BaseModel

from streamline import Concurrency, Context, Streamline, Throttle, Workflow


class Request(BaseModel):
    customer: str
    number: int


class Api:
    """Stands in for somebody's API: it counts, and refuses what is too much."""

    def __init__(self) -> None:
        self.arrivals: deque[float] = deque()
        self.at_work: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self.refused = 0

    async def call(self, customer: str) -> str:
        now = time.monotonic()
        self.arrivals.append(now)
        while self.arrivals[0] <= now - 1:
            self.arrivals.popleft()
        if len(self.arrivals) > 6 or self.at_work[customer] == 2:
            self.refused += 1
            raise ConnectionError("429 Too Many Requests")
        self.at_work[customer] += 1
        self.most_at_once[customer] = max(self.most_at_once[customer], self.at_work[customer])
        await asyncio.sleep(0.6)
        self.at_work[customer] -= 1
        return f"hello {customer}"


api = Api()

requests = Workflow(
    "request",
    input=Request,
    concurrency=Concurrency(2, key=lambda request: request.customer),  # a busy customer is in nobody's way
    throttle=Throttle(5, "1s"),  # one less than allowed: a request arrives a moment after its run has begun
)


@requests.step
async def send(ctx: Context[Request]) -> str:
    return await api.call(ctx.input.customer)


async def main() -> None:
    async with Streamline(workflows=[requests]) as app:
        wanted = [Request(customer=customer, number=n) for n in range(10) for customer in ("ann", "ben", "cid")]
        wanted = [request for request in wanted if request.customer == "ann" or request.number < 4]
        runs = await asyncio.gather(*(app.start(requests, request) for request in wanted))
        stats = await app.stats()
        for queue in stats.queues:
            print(f"{queue.key}: {queue.at_work} of {queue.limit} at work")
        answers = Counter([await run.result(timeout="60s") for run in runs])
    print(", ".join(f"{answer}: {count}" for answer, count in sorted(answers.items())))
    print(f"at most {max(api.most_at_once.values())} at once for a customer, {api.refused} refused")


if __name__ == "__main__":
    asyncio.run(main())
