"""A report every night at 02:30 in Berlin, also in the night in which there is no 02:30; shown at a quick pace.

Run ``python examples/nightly_report.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from streamline import Context, Event, Streamline, Workflow

reports = Workflow("nightly-report", input=str)


@reports.step
async def write(ctx: Context[str]) -> str:
    # Which night it is for is known, however late it begins.
    assert ctx.scheduled_at is not None
    return f"{ctx.input}, up to {ctx.scheduled_at:%Y-%m-%d %H:%M} UTC"


async def main() -> None:
    async with Streamline(workflows=[reports]) as app:
        # Safe to repeat, in every process and at every start: the same schedule again changes nothing.
        await app.schedules.create(
            "sales-report",
            reports,
            input="sales",
            daily="02:30",
            timezone="Europe/Berlin",
            overlap="queue",  # one report at a time, none left out
            catch_up="all",  # and a weekend without workers is made up for
        )
        for night in await app.schedules.preview("sales-report", 3, after=datetime(2027, 3, 27, tzinfo=UTC)):
            print(f"{night.wall:%a %d %b %H:%M} is {night.at:%H:%M} UTC", night.mark or "")

        # One now, beside the series.
        report = await app.schedules.trigger("sales-report")
        print((await report.result(timeout="20s")).partition(",")[0])

        # The same at a pace that can be watched: three of them, a second apart.
        done: asyncio.Queue[Event] = asyncio.Queue()
        app.on("run.done", done.put_nowait)
        await app.schedules.create("quick-report", reports, input="clicks", every="1s", count=3)
        for _ in range(3):
            print((await done.get()).run_id.partition("@")[0])


if __name__ == "__main__":
    asyncio.run(main())
