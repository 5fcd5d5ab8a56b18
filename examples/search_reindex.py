"""A search index that follows edits: not once for each of them, but once they pause, or after a second at the latest.

Run ``python examples/search_reindex.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from pydantic import BaseModel

from streamline import Concurrency, Context, Debounce, Streamline, Workflow


class Changed(BaseModel):
    collection: str
    revision: int


documents: dict[str, dict[str, str]] = {"wiki": {}, "news": {}}
search_index: dict[str, dict[str, str]] = {}
indexed: Counter[str] = Counter()

reindexing = Workflow(
    "reindex",
    input=Changed,
    debounce=Debounce("400ms", key=lambda changed: changed.collection, max_wait="1s"),
    concurrency=Concurrency(1, key=lambda changed: changed.collection),  # two at once would write over each other
)


@reindexing.step
async def reindex(ctx: Context[Changed]) -> int:
    collection = ctx.input.collection
    entries = {title: text.lower() for title, text in documents[collection].items()}
    await asyncio.sleep(0.1)  # it is not cheap
    search_index[collection] = entries
    indexed[collection] += 1
    return ctx.input.revision


async def edit(app: Streamline, collection: str, edits: int, pause: float) -> set[str]:
    """Edit some documents; return the ids of the runs that this led to."""
    run_ids = set()
    for n in range(edits):
        documents[collection][f"page-{n % 7}"] = f"Revision {n}"
        run = await app.start(reindexing, Changed(collection=collection, revision=n))
        run_ids.add(run.id)
        await asyncio.sleep(pause)
    return run_ids


async def main() -> None:
    async with Streamline(workflows=[reindexing]) as app:
        edited = await asyncio.gather(
            edit(app, "wiki", edits=5, pause=0.01),  # a flurry, and then silence
            edit(app, "news", edits=60, pause=0.05),  # three seconds without a pause
        )
        for collection, run_ids in zip(("wiki", "news"), edited, strict=True):
            revisions = [await app.handle(run_id).result(timeout="30s") for run_id in run_ids]
            print(f"{collection}: {indexed[collection]} runs, up to revision {max(revisions)}")
    for collection, entries in documents.items():
        assert search_index[collection] == {title: text.lower() for title, text in entries.items()}
    print("the index is up to date")


if __name__ == "__main__":
    asyncio.run(main())
