"""``streamline indexes``: creating the indexes of a deployment, or looking at them, outside the application."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from streamline.clock import SystemClock
from streamline.domain.names import check_prefix
from streamline.engine.index_keeping import check_all, ensure_all, wakes_of
from streamline.errors import IndexConflict, StreamlineError
from streamline.settings import Settings
from streamline.store import INDEXES, IndexIssue, Store, connect

SOUND, FAULTY, UNUSABLE = 0, 1, 2


def add_arguments(indexes: argparse.ArgumentParser) -> None:
    """Add what the command understands."""
    indexes.add_argument("--uri", help="connection string; default MONGODB_URI")
    indexes.add_argument("--database", help="name of the database; default that of the connection string")
    indexes.add_argument("--prefix", default="streamline", help="beginning of the collections' names")
    indexes.add_argument("--check", action="store_true", help="create nothing; exit code 1 where something is wrong")


async def look_after_indexes(chosen: argparse.Namespace) -> int:
    """Create what is missing, or look only; print what there is to say, and return the exit code."""
    uri = chosen.uri or os.environ.get("MONGODB_URI")
    if not uri:
        print("indexes: no database: use --uri, or set MONGODB_URI", file=sys.stderr)
        return UNUSABLE
    settings, clock = Settings(patience="10s"), SystemClock()
    try:
        driver = connect(uri, database=chosen.database, prefix=check_prefix(chosen.prefix), settings=settings)
        store = Store(driver, settings, clock)
        try:
            if not chosen.check:
                await ensure_all(store, await wakes_of(store, clock, settings))
            found = await check_all(store, clock, settings)
        finally:
            await store.close()
    except StreamlineError as error:
        print(f"indexes: {error}", file=sys.stderr)
        return FAULTY if isinstance(error, IndexConflict) else UNUSABLE
    print(table(found, f"{driver.database.name}, {chosen.prefix}.*"))
    return FAULTY if any(not each.is_harmless for each in found) else SOUND


def table(issues: Sequence[IndexIssue], where: str) -> str:
    """Return what was found as text, with a line for each index that is not as it should be."""
    wrong = [each for each in issues if not each.is_harmless]
    lines = [f"{where}: {sum(map(len, INDEXES.values()))} indexes are needed, {len(wrong)} are not as they should be"]
    rows = [("problem", "collection", "index", "detail")]
    rows += [(each.problem, each.collection, each.index, _detail(each)) for each in issues]
    wide = [max(len(row[i]) for row in rows) for i in range(3)]
    if issues:
        lines += [f"{a:{wide[0]}}  {b:{wide[1]}}  {c:{wide[2]}}  {d}".rstrip() for a, b, c, d in rows]
    return "\n".join(lines)


def _detail(issue: IndexIssue) -> str:
    if issue.problem == "unknown":
        return "of another release, or your own; left alone"
    return ", ".join(part for part in ("unique" if issue.unique else "", issue.detail) if part)
