"""Versions of workflows: their order, what tells two definitions apart, and how a run is carried over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from streamline.domain.definition import Definition
from streamline.domain.record import Record

_PART = re.compile(r"\d+|[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Migration:
    """How a run goes on under another version of its workflow.

    Args:
        step: The step that it goes on at, from its beginning; default the one that it stands at, with all that it has
            settled so far.
        steps: Steps that have another id now: the old id to the new one; the others are matched by their id.
        state: The run's state under the new version; default as it is.
        input: The run's input under the new version; default as it is.
    """

    step: str | None = None
    steps: Mapping[str, str] = field(default_factory=dict)
    state: Any = ...
    input: Any = ...


@dataclass(frozen=True, slots=True)
class VersionInfo(Record):
    """How a version of a workflow stands.

    Attributes:
        workflow: The workflow.
        version: The version.
        live: Number of its runs that have not ended: once it is 0, its code is no longer needed.
        served: Whether any living worker serves it.
        steps: The ids of its steps, as they were first registered; empty where it never was.
        first_seen_at: When it was first registered.
    """

    workflow: str
    version: str
    live: int
    served: bool
    steps: tuple[str, ...] = ()
    first_seen_at: datetime | None = None


def order_of(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return what versions are compared by: numbers as numbers, and a release before the word that qualifies it."""
    parts = [(1, int(part), "") if part.isdigit() else (-1, 0, part) for part in _PART.findall(version)]
    return (*parts, (0, 0, ""))


def signature_of(definition: Definition) -> list[dict[str, Any]]:
    """Return what must not change under one version: the steps in their order, and which belong together."""
    return [{"id": step.id, **({} if step.group is None else {"group": step.group})} for step in definition.steps]
