"""Frozen values that can be read by attribute or by key, as they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, fields
from typing import Any


class Record:
    """Adds reading by key to a dataclass: ``error["code"]`` is ``error.code``."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        """Return the field of this name; raise ``KeyError`` where there is none."""
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the fields."""
        return iter(self.keys())

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields."""
        return tuple(item.name for item in fields(self))  # type: ignore[arg-type]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the field of this name, or `default` where there is none."""
        return getattr(self, key) if key in self.keys() else default


def required() -> Any:
    """Return a field without a default.

    To a type checker it looks like one with a default: mypy takes those without for attributes of instances only, and
    would refuse a query that names a field by its class, such as ``RunDocument.workflow == "order"``.
    """
    return field()
