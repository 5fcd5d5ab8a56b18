"""A parent with 50 children: one run per subscriber, and a parent that waits for all of them without cost.

Run ``python examples/newsletter.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from streamline import Context, NonRetriableError, Streamline, Workflow


class Letter(BaseModel):
    to: str
    text: str


class Issue(BaseModel):
    text: str
    subscribers: list[str]


class Report(BaseModel):
    sent: int
    bounced: list[str]


letters = Workflow("letter", input=Letter)
newsletters = Workflow("newsletter", input=Issue)


@letters.step
async def send(ctx: Context[Letter]) -> str:
    if ctx.input.to.endswith("13"):
        raise NonRetriableError("no such mailbox")
    return f"{ctx.input.text}, {ctx.input.to}"


@newsletters.step
async def deliver(ctx: Context[Issue]) -> Report:
    issue = ctx.input
    children = {to: (letters, Letter(to=to, text=issue.text)) for to in issue.subscribers}
    # Parked until the last one has ended. "settled" takes failures as they come; "all" would raise the first.
    ended = await ctx.join(children, policy="settled")
    return Report(
        sent=sum(child.ok for child in ended.values()),
        bounced=[to for to, child in ended.items() if not child.ok],
    )


async def main() -> None:
    async with Streamline(workflows=[newsletters, letters]) as app:
        issue = Issue(text="Good morning", subscribers=[f"reader-{n}" for n in range(1, 51)])
        print(await app.run(newsletters, issue, timeout="30s"))
        print(await app.count_runs(letters))


if __name__ == "__main__":
    asyncio.run(main())
