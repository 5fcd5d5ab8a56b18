"""Money moved between two accounts in one transactional step: both sides, the ledger and the step, or nothing.

Run ``python examples/ledger_transfer.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, PositiveInt

from streamline import Context, NonRetriableError, RetryPolicy, Streamline, Workflow


class Transfer(BaseModel):
    source: str
    target: str
    amount: PositiveInt


transfers = Workflow("transfer", input=Transfer, retry=RetryPolicy(max_attempts=3, delay="20ms"))


@transfers.step(transactional=True)
async def move(ctx: Context[Transfer]) -> str:
    wanted, session = ctx.input, ctx.session
    bank = session.client.get_default_database("streamline")  # the app's own
    enough = {"_id": wanted.source, "balance": {"$gte": wanted.amount}}
    taken = await bank["accounts"].update_one(enough, {"$inc": {"balance": -wanted.amount}}, session=session)
    if not taken.matched_count:
        raise NonRetriableError(f"{wanted.source} has not got {wanted.amount}")
    entry = {"run": ctx.run_id, **wanted.model_dump()}
    await bank["ledger"].insert_one(entry, session=session)
    given = {"$inc": {"balance": wanted.amount}}
    paid = await bank["accounts"].update_one({"_id": wanted.target}, given, session=session)
    if not paid.matched_count:
        raise NonRetriableError(f"there is no {wanted.target}")  # what was taken is given back with the transaction
    if ctx.attempt == 1 and wanted.target == "cat":
        raise ConnectionError("a bad moment to fail, after everything was written")
    return f"{wanted.source} -> {wanted.target}: {wanted.amount}"


@transfers.step
async def confirm(ctx: Context[Transfer]) -> str:
    return f"{ctx.output(move)}, confirmed"


async def main() -> None:
    async with Streamline(workflows=[transfers]) as app:
        accounts, ledger = app.database["accounts"], app.database["ledger"]
        await accounts.insert_many([{"_id": name, "balance": 100} for name in ("ann", "bob", "cat")])
        wanted = [("ann", "bob", 30), ("bob", "cat", 50), ("cat", "ann", 500), ("ann", "dan", 10), ("cat", "ann", 20)]
        for source, target, amount in wanted:
            handle = await app.start(transfers, Transfer(source=source, target=target, amount=amount))
            run = await handle.wait(timeout="30s")
            print(run.output if run.error is None else f"refused: {run.error.message}")
        balances = {each["_id"]: each["balance"] async for each in accounts.find()}
        print(balances, "sum", sum(balances.values()), "entries", await ledger.count_documents({}))


if __name__ == "__main__":
    asyncio.run(main())
