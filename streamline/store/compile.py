"""From a transition to what MongoDB is asked: a filter and a classic update.

Users' values only ever stand in value positions of classic operators, where the server takes ``$`` in them for text.
"""

from __future__ import annotations

from typing import Any

import bson

from streamline.domain.change import Absent, Append, AtMost, Change, Counted, OneOf
from streamline.store.driver import CODEC

_PLAIN = frozenset({str, int})


def compile_guard(change: Change) -> dict[str, Any]:
    """Return the filter that holds where the change's guard does."""
    return {path: wanted if type(wanted) in _PLAIN else _condition(wanted) for path, wanted in change.guard.items()}


def compile_update(change: Change, mark: str | None = None) -> dict[str, Any]:
    """Return the update that does what `streamline.domain.change.apply` does, and leaves `mark`."""
    put = change.put if mark is None else {**change.put, "mark": mark}
    update: dict[str, Any] = {"$set": put}
    if change.drop:
        update["$unset"] = dict.fromkeys(change.drop, "")
    if change.add:
        update["$inc"] = change.add
    if change.earliest:
        update["$min"] = change.earliest
    pushes = {path: _push(more) for path, more in change.append.items()}
    if change.events:
        pushes["events"] = {"$each": change.events, "$slice": -change.keep}
    if pushes:
        update["$push"] = pushes
    return update


def as_stored(value: Any) -> Any:
    """Return a value as it reads once it was stored."""
    return bson.decode(bson.encode({"": value}), codec_options=CODEC)[""]


def _push(more: Append) -> dict[str, Any]:
    push: dict[str, Any] = {"$each": list(more.values)}
    return push if more.keep is None else push | {"$slice": -more.keep}


def _condition(wanted: Any) -> Any:
    if isinstance(wanted, AtMost):
        return {"$lte": wanted.limit}
    if isinstance(wanted, Counted):
        return {"$gte": 0}
    if isinstance(wanted, OneOf):
        return {"$in": list(wanted.options)}
    if isinstance(wanted, Absent):
        return None
    return {"$eq": wanted} if isinstance(wanted, dict) else wanted
