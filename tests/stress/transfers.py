"""Money that is moved in transactional steps, by processes that die around the commit."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Mapping
from typing import Any

from streamline import Context, Streamline, Workflow
from tests.stress.ledger import Ledger
from tests.stress.target import Opening, tell_log

NAME = "transfer"
ACCOUNTS = 12
# Between two writes of the handler's; before the write that ends the step; between that and the commit; while the
# commit is under way; and when it is known.
POINTS = ("halfway", "before_update", "updated", "committing", "committed")


class Death:
    """Ends the process the `at`-th time that it comes to a point.

    Args:
        ledger: Where it is written down beforehand.
        point: One of `POINTS`, or None for a process that lives.
        at: Which time, from 1.
    """

    def __init__(self, ledger: Ledger, point: str | None, at: int) -> None:
        self._ledger = ledger
        self._point = point
        self._left = at

    def is_at(self, point: str) -> bool:
        """Count one time at a point; return whether it is the one."""
        if point != self._point:
            return False
        self._left -= 1
        return self._left == 0

    def come(self, point: str) -> None:
        """Die here, if this is the time."""
        if self.is_at(point):
            self.now()

    def now(self) -> None:
        """Die."""
        self._ledger.write("dies", point=self._point)
        os.kill(os.getpid(), signal.SIGKILL)


def transfers(death: Death | None = None) -> Workflow[Any, Any, Any]:
    """Return a workflow whose second step moves money: its input is ``{"database", "source", "target", "amount"}``."""
    flow: Workflow[Any, Any, Any] = Workflow(NAME)

    @flow.step
    async def check(ctx: Context[Any]) -> str:
        return "checked"

    @flow.step(transactional=True)
    async def move(ctx: Context[Any]) -> int:
        wanted, session = ctx.input, ctx.session
        database = session.client[wanted["database"]]
        # Where a step was done twice, there would be two: nothing of the run is in its id.
        await database["entries"].insert_one({"run": ctx.run_id, "amount": wanted["amount"]}, session=session)
        await _add(database, wanted["source"], -wanted["amount"], session)
        if death is not None:
            death.come("halfway")
        await _add(database, wanted["target"], wanted["amount"], session)
        return int(wanted["amount"])

    @flow.step
    async def tell(ctx: Context[Any]) -> int:
        return ctx.output(move)

    return flow


async def _add(database: Any, account: int, amount: int, session: Any) -> None:
    changed = await database["accounts"].update_one({"_id": account}, {"$inc": {"money": amount}}, session=session)
    assert changed.matched_count == 1


def wishes(database: str, n: int, dice: random.Random) -> list[dict[str, Any]]:
    """Return the inputs of so many transfers."""
    pairs = [dice.sample(range(ACCOUNTS), 2) for _ in range(n)]
    return [
        {"database": database, "source": source, "target": target, "amount": dice.randint(1, 9)}
        for source, target in pairs
    ]


def pay(options: dict[str, Any]) -> None:
    """Work on transfers until this process dies; options as of `paying`."""
    asyncio.run(_pay(options))


def paying(opening: Mapping[str, Any], point: str | None, at: int) -> dict[str, Any]:
    """Return the options of a process that works on transfers.

    Args:
        opening: Arguments of `Opening`.
        point: Where it dies; None for one that lives until it is killed.
        at: The how manieth time that it comes there.
    """
    return {"opening": dict(opening), "point": point, "at": at}


async def _pay(options: dict[str, Any]) -> None:
    opening = Opening(**options["opening"])
    ledger = Ledger(opening.ledger, options["name"])
    tell_log(ledger)
    death = Death(ledger, options["point"], options["at"])
    async with opening.app(ledger) as app:
        _plant(app, death)
        app.register(transfers(death))
        await asyncio.sleep(60)
    ledger.write("survived")


def _plant(app: Streamline, death: Death) -> None:
    """Put death in the way of the write that ends a step, and of its commit."""
    driver: Any = app._open_session.runtime.store.driver
    send, commit = driver.command_in, driver.commit

    async def command_in(session: Any, command: Mapping[str, Any]) -> dict[str, Any]:
        death.come("before_update")
        answer: dict[str, Any] = await send(session, command)
        death.come("updated")
        return answer

    async def commit_and_die(session: Any) -> None:
        if death.is_at("committing"):
            asyncio.get_running_loop().call_later(random.uniform(0, 0.003), death.now)
        await commit(session)
        death.come("committed")

    driver.command_in, driver.commit = command_in, commit_and_die
