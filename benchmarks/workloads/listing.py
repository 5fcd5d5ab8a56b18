"""W9: pages of one tenant's runs, and of all tenants', in a collection of few, more and very many runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from statistics import median

from benchmarks.crowd import fill
from benchmarks.flows import failing, noop
from benchmarks.goals import Goal, at_most
from benchmarks.pacing import pace
from benchmarks.rows import Malfunction, Row, ratio_row
from benchmarks.stage import Stage
from streamline import Page, Run, Streamline, Tenancy

_MILLION = 1_000_000
_TENANTS = tuple(f"tenant{i}" for i in range(10))
_FEW = 100  # failed runs of each tenant, however many have not failed
_PAGE = 50

Ask = Callable[[Streamline], Awaitable[Page[object]]]


async def _second(app: Streamline) -> Page[Run]:
    """Go on behind the first page, where the runs of very many instants lie before and behind."""
    everybodys = app.all_tenants()
    first = await everybodys.runs(limit=_PAGE)
    return await everybodys.runs(limit=_PAGE, after=first.next)


PAGES: dict[str, tuple[Ask, Goal | None]] = {
    "a tenant's page of 50": (lambda app: app.tenant(_TENANTS[3]).runs(limit=_PAGE), at_most(1.25, 2)),
    "its page of summaries": (lambda app: app.tenant(_TENANTS[3]).summaries(limit=_PAGE), at_most(1.25, 2)),
    "its page of failed runs": (
        lambda app: app.tenant(_TENANTS[3]).runs(status="failed", limit=_PAGE),
        at_most(1.25, 2),
    ),
    "two pages of all tenants": (_second, at_most(1.25, 2)),
}


async def measure(stage: Stage) -> list[Row]:
    """Ask for each page in turns in collections of three sizes, and compare with the one in the middle."""
    largest = _MILLION if stage.millions else stage.sizes.crowd
    sizes = (largest, *stage.sizes.pages)
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(await _filled(stage, stack, size)) for size in sizes]
        return [await _compare(stage, apps, sizes, what) for what in PAGES]


async def _filled(stage: Stage, stack: AsyncExitStack, size: int) -> Streamline:
    database = await stack.enter_async_context(stage.database(f"w9_{size}"))
    async with stage.app(database, noop, failing) as app:
        await fill(stage.client, app, "finished", size, _TENANTS)
        await fill(stage.client, app, "failed", _FEW * len(_TENANTS), _TENANTS)
    return Streamline(stage.uri, database=database, tenancy=Tenancy(required=True), worker=False)


async def _compare(stage: Stage, apps: Sequence[Streamline], sizes: Sequence[int], what: str) -> Row:
    ask, goal = PAGES[what]
    rounds: list[list[float]] = []

    async def page(app: Streamline) -> None:
        if len((await ask(app)).items) != _PAGE:
            raise Malfunction(f"{what} is not full")

    for app in apps:
        await page(app)
    for _ in range(stage.rounds):
        paces = [await pace(stage.sizes.singles, 1, lambda _, app=app: page(app)) for app in apps]  # type: ignore[misc]
        rounds.append([each.percentile(0.5) * 1000 for each in paces])
    largest, middle, smallest = (median(each) for each in zip(*rounds, strict=True))
    shown = f"{largest:.2f} ms; of {sizes[1]:,} {middle:.2f}, of {sizes[2]:,} {smallest:.2f}"
    ratios = [each[0] / each[1] for each in rounds]
    return ratio_row("W9", f"{what}, of {sizes[0]:,} runs / {sizes[1]:,}", shown, ratios, goal)
