"""What the documents have in common: they are read, and whatever would write is refused.

A run is changed by one guarded write per transition. Beanie's ``save()`` writes whole documents, as they were when they
were read, and would undo what has happened since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any, ClassVar, NoReturn, Self, TypeVar

from beanie import Document
from beanie.odm.queries.find import FindMany, FindOne

from streamline.admin.opened import Opened
from streamline.errors import DocumentIsReadOnly

D = TypeVar("D", bound="EngineDocument")

# What only reads. Everything else is refused: a name that a new driver or Beanie brings is not trusted by default.
_READS = frozenset({
    "codec_options", "count_documents", "distinct", "estimated_document_count", "find", "find_one", "find_raw_batches",
    "full_name", "index_information", "list_indexes", "name", "options", "read_concern", "read_preference", "watch",
})  # fmt: skip
_WRITING_STAGES = ("$merge", "$out")
# Beanie encodes whole documents before it comes to the collection: these are refused before that.
_WRITES = (
    "bulk_writer", "create", "current_date", "delete", "delete_all", "inc", "insert", "insert_many", "insert_one",
    "replace", "replace_many", "save", "save_changes", "set", "update", "update_all",
)  # fmt: skip


class ReadOnlyCollection:
    """A collection of either driver that refuses what would write; all that Beanie does to the database goes here.

    Args:
        collection: The driver's. What it returns has aware instants, in UTC.
    """

    def __init__(self, collection: Any) -> None:
        codec = collection.codec_options.with_options(tz_aware=True, tzinfo=UTC)
        self._collection = collection.with_options(codec_options=codec)

    def __getattr__(self, name: str) -> Any:
        """Return what only reads; raise `DocumentIsReadOnly` for the rest."""
        if name in _READS:
            return getattr(self._collection, name)
        if name.startswith("_"):
            raise AttributeError(name)
        raise _refusal(name)

    def with_options(self, **options: Any) -> Self:
        """Return the same collection with other options of reading."""
        return type(self)(self._collection.with_options(**options))

    def aggregate(self, pipeline: Iterable[Mapping[str, Any]], *positional: Any, **options: Any) -> Any:
        """Carry out a pipeline; raise `DocumentIsReadOnly` where it would write."""
        stages = list(pipeline)
        for stage in stages:
            if found := [name for name in _WRITING_STAGES if name in stage]:
                raise _refusal(found[0])
        return self._collection.aggregate(stages, *positional, **options)


class ReadOnlyFindOne(FindOne[Any]):
    """A query for one document that does not replace it."""

    async def replace_one(self, *_: Any, **__: Any) -> NoReturn:
        """Raise `DocumentIsReadOnly`."""
        raise _refusal("replace_one")


class EngineDocument(Document):
    """A document of one of the engine's collections.

    Attributes:
        collection: The collection, without the prefix.
    """

    collection: ClassVar[str]
    _find_one_query_class: ClassVar[type] = ReadOnlyFindOne

    @classmethod
    def of(cls: type[D], app: Opened, *conditions: Any) -> FindMany[D]:
        """Return the query for what ``app.tenant("acme")`` sees, or ``app.all_tenants()``, or the app itself.

        Args:
            app: Whose documents. Beanie itself knows of no tenant: `find` sees those of all.
            conditions: As for `find`; further ones by ``.find(...)``.

        Raises:
            TenantRequired: The app has tenants, and this does not say which.
        """
        scope = app._scope  # pyright: ignore[reportPrivateUsage]
        return cls.find(dict(scope.confine({})), *conditions)

    @classmethod
    def set_collection(cls, collection: Any) -> None:
        """Bind to a collection, for reading: Beanie calls this when it is initialised, whoever does that."""
        super().set_collection(ReadOnlyCollection(collection))  # type: ignore[no-untyped-call]


def _refusal(name: str) -> DocumentIsReadOnly:
    return DocumentIsReadOnly(f"{name}: documents of the engine are only read; runs are changed by the app's verbs")


def _refusing(name: str) -> staticmethod[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise _refusal(name)

    return staticmethod(refuse)


for _name in _WRITES:
    setattr(EngineDocument, _name, _refusing(_name))
