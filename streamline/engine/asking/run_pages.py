"""Pages and counts of runs, of one tenant or of all, in the order of their creation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import merge
from itertools import islice
from typing import Any

from streamline.engine.asking.scans import Scans
from streamline.engine.runtime import Runtime
from streamline.store import EVERYTHING, Scope, statements
from streamline.store.filters import RunQuery, behind, both_behind, checked_limit, cursor_of, sort_of
from streamline.store.operations import Aggregate, Document, Filter, Find, Sort

# The server merges the pages of so many tenants without sorting them itself; past 200 it would read all their runs.
_TENANTS_AT_ONCE = 100
Asked = tuple[list[Document], str | None]
_Part = tuple[Filter, Sort, str | None]


class RunPages:
    """Reads pages and counts, and has slow ones looked into."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._scans = Scans(runtime)

    async def page(
        self, query: RunQuery, order: str, limit: int, after: str | None, scope: Scope, fields: Sequence[str] = ()
    ) -> Asked:
        """Return a page of documents, or of the named fields of them, and the place behind it if there are more."""
        wanted, sort, size = query.filter(), sort_of(order), checked_limit(limit)
        found: list[Document] = []
        for part, in_order, hint in _parts(wanted, order, after, sort, scope):
            if len(found) <= size:
                ask = self._everybodys if scope.everything else self._ask
                found += await ask(statements.find_page(part, in_order, size + 1 - len(found), fields, hint), scope)
        following = cursor_of(found[size - 1]) if len(found) > size else None
        return found[:size], following

    async def count(self, query: RunQuery, scope: Scope) -> list[Document]:
        """Return how many runs there are by status, as ``_id`` and ``n``."""
        wanted: Filter = query.filter()
        if scope.everything and query.is_narrow:
            wanted = _of_tenants(wanted, await _tenants(self._runtime))
        return await self._ask(statements.count_runs(wanted), scope)

    async def close(self) -> None:
        """Look into nothing any more."""
        await self._scans.close()

    async def _everybodys(self, page: Find, scope: Scope) -> list[Document]:
        """Read a page over all tenants: the index leads with the tenant, so each one's runs are in order, not all."""
        tenants = await _tenants(self._runtime)
        groups = [tenants[i : i + _TENANTS_AT_ONCE] for i in range(0, len(tenants), _TENANTS_AT_ONCE)]
        pages = (replace(page, filter=_of_tenants(page.filter, group)) for group in groups)
        parts = await asyncio.gather(*(self._ask(each, scope) for each in pages))
        if len(parts) == 1:
            return parts[0]
        return list(islice(merge(*parts, key=_place, reverse=page.sort[0][1] < 0), page.limit))

    async def _ask(self, statement: Find | Aggregate, scope: Scope) -> list[Document]:
        clock = self._runtime.clock
        began = clock.monotonic()
        found = await self._runtime.store.run(statement, scope)
        # Of groups, the number of runs in them.
        self._scans.suspect(statement, scope, clock.monotonic() - began, sum(each.get("n", 1) for each in found))
        return found


async def scopes_within(runtime: Runtime, scope: Scope) -> list[Scope]:
    """Return the scopes of single tenants that make up a scope: within each, an index has the runs in order."""
    return [Scope(tenant) for tenant in await _tenants(runtime)] if scope.everything else [scope]


async def _tenants(runtime: Runtime) -> list[str | None]:
    """Return the tenants that have runs; None stands for runs of no tenant."""
    found = await runtime.store.run(statements.find_tenants(), EVERYTHING)
    return sorted((each["_id"] for each in found), key=lambda tenant: tenant or "")


def _parts(wanted: Filter, order: str, after: str | None, sort: Sort, scope: Scope) -> list[_Part]:
    """Return the filters whose runs, one after the other, stand behind a place, each with its order and its index."""
    if after is None:
        return [(wanted, sort, None)]
    if not scope.everything:
        return [({"$and": [wanted, behind(after, order)]}, sort, None)]
    # For one tenant the server goes through both parts of what is behind in order; for several it would sort them.
    same_instant, further = both_behind(after, order)
    # The order of ids alone would let it take the index on these.
    return [({"$and": [wanted, same_instant]}, sort[1:], "runs_page"), ({"$and": [wanted, further]}, sort, None)]


def _of_tenants(query: Filter, tenants: Sequence[str | None]) -> Filter:
    """Return a filter of all tenants that names them, so that an index which leads with the tenant serves it."""
    return {"$and": [{"tenant_id": {"$in": list(tenants)}}, query]}


def _place(document: Mapping[str, Any]) -> tuple[Any, str]:
    return document["created_at"], document["_id"]
