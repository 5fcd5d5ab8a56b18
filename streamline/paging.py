"""Pages of runs, and what can be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypedDict, TypeVar

from streamline.domain.statuses import RunStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of what was asked for.

    Args:
        items: In the order asked for.
        next: Pass it as ``after`` for the page that follows; None where there is none.
    """

    items: tuple[T, ...]
    next: str | None


class RunOptions(TypedDict, total=False):
    """Which runs to page through; see `Streamline.runs`."""

    status: RunStatus | Sequence[RunStatus] | None
    tags: str | Sequence[str] | None
    match: Mapping[str, Any] | None
    created_after: datetime | None
    created_before: datetime | None
    order: str
    limit: int
    after: str | None
