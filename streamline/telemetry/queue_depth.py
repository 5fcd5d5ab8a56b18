"""How many runs wait to be taken, as the workers of this process saw it last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from weakref import WeakSet


@dataclass(frozen=True, slots=True)
class Waiting:
    """Runs of one version that are due and that nobody has taken.

    Args:
        route: The version, as ``workflow@version``.
        count: How many there are.
        lag: Seconds since the first of them fell due.
    """

    route: str
    count: int
    lag: float


class SeenQueue:
    """What one worker knows of its database.

    Args:
        database: The name of it.

    Attributes:
        waiting: What it saw last; nothing once it has stopped.
    """

    def __init__(self, database: str) -> None:
        self.database = database
        self.waiting: Sequence[Waiting] = ()
        with _LOCK:
            _QUEUES.add(self)


_QUEUES: WeakSet[SeenQueue] = WeakSet()
_LOCK = Lock()  # whoever collects has a thread of its own


def seen() -> Iterator[tuple[Waiting, dict[str, str]]]:
    """Yield what waits, and by which attributes it is told apart; the same once where several workers see it."""
    with _LOCK:
        queues = tuple(_QUEUES)
    found = {(queue.database, each.route): each for queue in queues for each in queue.waiting}
    for (database, route), waiting in found.items():
        workflow, _, version = route.partition("@")
        told = {"streamline.workflow": workflow, "streamline.version": version, "db.namespace": database}
        yield waiting, told
