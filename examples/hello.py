"""The smallest workflow: two steps, and a pause between them that would survive a restart.

Run ``python examples/hello.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio

from streamline import Context, Streamline, Workflow

greeting = Workflow("greeting", input=str)


@greeting.step
async def compose(ctx: Context[str]) -> str:
    return f"Hello, {ctx.input}!"


@greeting.step
async def deliver(ctx: Context[str]) -> str:
    await ctx.sleep("1s")  # the run is parked in the database; this process could end here
    return ctx.output(compose)


async def main() -> None:
    async with Streamline(workflows=[greeting]) as app:
        run = await app.start(greeting, "world")
        print(await run.result(timeout="30s"))


if __name__ == "__main__":
    asyncio.run(main())
