"""Making a database as if nothing had been there."""

from __future__ import annotations

from typing import Any

from pymongo import WriteConcern
from pymongo.database import Database

from streamline.store.indexes import INDEXES

PREFIX = "streamline."


def empty_collections(database: Database[dict[str, Any]]) -> None:
    """Remove all documents; what an app would not find as it leaves it is dropped."""
    for each in database.list_collections():
        if "capped" not in each["options"] and _is_as_an_app_leaves_it(database, each["name"]):
            # The engine reads what the majority has: it must not see what is removed here.
            collection = database.get_collection(each["name"], write_concern=WriteConcern("majority"))
            collection.delete_many({})
        else:
            database.drop_collection(each["name"])


def _is_as_an_app_leaves_it(database: Database[dict[str, Any]], name: str) -> bool:
    found = {each["name"]: dict(each["key"]) for each in database[name].list_indexes() if each["name"] != "_id_"}
    known: Any = INDEXES.get(name.removeprefix(PREFIX), ())  # type: ignore[call-overload]
    return bool(known) and found == {index.name: dict(index.keys) for index in known}
