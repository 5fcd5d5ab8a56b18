"""The course of the demonstration: start everything, kill a worker in the middle, and settle the accounts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from streamline import Streamline, StreamlineError
from streamline.demo import payment_client
from streamline.demo.balance import Figures
from streamline.demo.fulfilment import fulfilment
from streamline.demo.order_file import SHIPPED, Intake
from streamline.demo.payment_service import PaymentService
from streamline.demo.screen import Picture, Screen
from streamline.demo.staff import Staff, WorkersLost

WORKERS = 2
KILL_AT = 0.4  # of the accepted orders
LOOK_EVERY = 0.2  # seconds
GIVE_UP = 300.0  # seconds
SEED = 7


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    Args:
        orders: The order file; None is the one that comes with the package.
        kill: Whether a worker is killed.
        keep: Where the data is kept; None keeps none.
    """

    orders: Path | None = None
    kill: bool = True
    keep: Path | None = None


class Performance:
    """The orders on their way: started here, worked on by others, one of whom is killed.

    Args:
        app: Starts the runs, and works on none.
        screen: Where it is shown.
        intake: The orders.
        kill: Whether a worker is killed.
    """

    def __init__(self, app: Streamline, screen: Screen, intake: Intake, *, kill: bool) -> None:
        self._app = app
        self._screen = screen
        self._intake = intake
        self._kill = kill
        self._told = 0
        self._picture = Picture(total=len(intake.lines))

    async def run(self, payments_url: str, database: str) -> None:
        """Return once every run has ended.

        Raises:
            WorkersLost: No worker is left, or they take too long.
        """
        self._screen.tell(f"starting {WORKERS} worker processes; payments go to {payments_url}, which fails at times")
        environment = {payment_client.VARIABLE: payments_url}
        async with Staff(WORKERS, (self._app.uri, database), environment, self._heard) as staff:
            self._screen.tell(f"starting a run for each of {len(self._intake.lines)} orders")
            starting = asyncio.create_task(self._intake.start_runs(self._app))
            try:
                await self._watch(staff, starting)
            finally:
                starting.cancel()
                await asyncio.wait([starting])

    async def _watch(self, staff: Staff, starting: asyncio.Task[None]) -> None:
        deadline = time.monotonic() + GIVE_UP
        while True:
            started = starting.done()
            if started:
                starting.result()
            await self._look(staff)
            if started and self._picture.ended >= self._picture.total:
                return
            if self._kill and self._picture.done >= KILL_AT * (self._picture.total - self._picture.refused):
                self._kill = False
                await self._kill_one(staff)
            if not staff.alive or time.monotonic() > deadline:
                raise WorkersLost(f"the runs have not ended, with {len(staff.alive)} workers left")
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self, staff: Staff) -> None:
        picture, refused = self._picture, self._intake.refused
        picture.statuses = {str(status): n for status, n in (await self._app.count_runs(fulfilment)).items()}
        picture.refused = len(refused)
        picture.workers = staff.alive
        for refusal in refused[self._told :]:
            self._screen.tell(str(refusal))
        self._told = len(refused)
        self._screen.show(picture)

    async def _kill_one(self, staff: Staff) -> None:
        pid = await staff.kill_one()
        running = self._app.iter_runs(fulfilment, status="running")
        held = [run.id async for run in running if f"-{pid}-" in (run.worker or "")]
        self._screen.tell(f"SIGKILL to worker process {pid}, in the middle of {len(held)} runs")

    def _heard(self, kind: str, run_id: str) -> None:
        self._picture.events += 1
        if kind == "run.recovered":
            self._screen.tell(f"order {run_id} recovered by the other worker")


async def run_demo(options: Options) -> int:
    """Run the demonstration; return 0 if all sums agree, else 1."""
    screen = Screen()
    try:
        intake = await Intake.read(options.orders or SHIPPED)
        with screen:
            figures = await _perform(options, screen, intake)
    except (OSError, UnicodeDecodeError, WorkersLost, StreamlineError) as error:
        screen.conclude(f"The demonstration has failed: {error}", good=False)
        return 1
    return _settle(screen, figures)


async def _perform(options: Options, screen: Screen, intake: Intake) -> Figures:
    database = f"demo_{int(time.time())}"  # kept data may hold an earlier demonstration with the same orders
    app = Streamline.embedded(options.keep, database=database, workflows=[fulfilment], worker=False)
    with PaymentService(SEED) as payments:
        screen.tell("starting a private MongoDB")
        async with app:
            await Performance(app, screen, intake, kill=options.kill).run(payments.url, database)
            ledger = await asyncio.to_thread(payment_client.ledger, payments.url)
            refused = Counter(type(refusal.error).__name__ for refusal in intake.refused)
            figures = Figures(len(intake.lines), len(intake.accepted), refused, ledger)
            await figures.count(app.iter_runs(fulfilment, limit=500))
    if options.keep is not None:
        screen.tell(f"the data stays in {options.keep}, in the database {database}")
    return figures


def _settle(screen: Screen, figures: Figures) -> int:
    screen.close("Orders fulfilled in five steps", figures.rows())
    differences = figures.differences()
    for difference in differences:
        screen.conclude(difference, good=False)
    if differences:
        screen.conclude("The sums do not agree.", good=False)
        return 1
    done = len(figures.done)
    screen.conclude(f"All sums agree: {done} orders done, {done} charges, every order charged exactly once.", good=True)
    return 0
