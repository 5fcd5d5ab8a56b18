"""An expense that somebody approves: reminded until they answer, and refused when nobody does.

Run ``python examples/expense_approval.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pydantic import BaseModel

from streamline import Context, Continue, Decision, Streamline, Workflow


class Expense(BaseModel):
    title: str
    amount: int
    remind_every: timedelta = timedelta(days=1)
    answer_within: timedelta = timedelta(days=7)


inbox: asyncio.Queue[str] = asyncio.Queue()  # of the boss


async def mail(text: str) -> None:
    print(f"mail to boss: {text}")
    inbox.put_nowait(text)


expenses = Workflow("expense", input=Expense)


@expenses.step
async def approval(ctx: Context[Expense]) -> Decision:
    expense = ctx.input

    async def decide() -> Decision:
        return await ctx.approve(
            f"Pay {expense.amount} for {expense.title}?", approvers=["boss"], timeout=expense.answer_within
        )

    async def remind() -> None:
        async def turn(sent: int, i: int) -> Continue[int]:
            await ctx.sleep(expense.remind_every)
            await ctx.call("mail", mail, f"reminder {sent + 1}: {expense.title}")
            return Continue(sent + 1)

        await ctx.loop("reminders", 0, turn)

    await ctx.call("ask", mail, f"please decide: {expense.title}")
    # Reminding never ends by itself: the decision, or the end of its time, wins the race and ends it.
    first = await ctx.gather("decision", {"decide": decide, "remind": remind}, mode="race")
    return first["decide"]  # type: ignore[no-any-return]


@expenses.step
async def pay(ctx: Context[Expense]) -> str:
    decision = ctx.output(approval)
    if not decision.approved:
        return f"{ctx.input.title} is not paid: {decision.outcome}"
    return f"{ctx.input.title} is paid, as {decision.by} says"


async def main() -> None:
    async with Streamline(workflows=[expenses]) as app:
        often = timedelta(seconds=0.5)
        chair = await app.start(expenses, Expense(title="chair", amount=300, remind_every=often))
        while await inbox.get() != "reminder 1: chair":
            pass  # the boss hesitates until they are reminded
        await app.approve(chair.id, by="boss")
        print(await chair.result(timeout="30s"))

        soon = timedelta(seconds=1.2)
        yacht = Expense(title="yacht", amount=900_000, remind_every=often, answer_within=soon)
        print(await (await app.start(expenses, yacht)).result(timeout="30s"))


if __name__ == "__main__":
    asyncio.run(main())
