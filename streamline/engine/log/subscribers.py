"""The records of subscribers: made, asked, put back, removed; by any process, whoever drives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from streamline.domain.dead_letter import DeadLetter, read_letter
from streamline.domain.durations import check_instant
from streamline.engine.log.subscriber_driver import HINT
from streamline.engine.runtime import Runtime
from streamline.errors import InvalidQuery, SubscriberNotFound
from streamline.features.subscriptions import Subscription
from streamline.store import Scope, statements

Beginning = Literal["now", "beginning"]


class Subscribers:
    """What is stored of subscribers; each name is one that `stored_name` has made for the same scope."""

    def __init__(self, runtime: Runtime, scope: Scope) -> None:
        self._runtime = runtime
        self._scope = scope
        self._log = runtime.outbox.log

    async def create(
        self, subscription: Subscription, start: Beginning = "now", more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Store a subscriber where there is none of its name, and begin the log; return its record.

        Args:
            subscription: What it wants; where it is stored with something else, that is changed.
            start: ``"now"``, or ``"beginning"`` for all that the log has; of no consequence where it is stored already.
            more: Further fields of its record.
        """
        await self._runtime.outbox.switch_on()
        position = 0 if start == "beginning" else await self._log.tail()
        record = {"_id": subscription.name, **subscription.record(), "position": position, "held": [], "saves": 0}
        record |= {"tenant_id": self._scope.tenant_id, "created_at": self._runtime.clock.now(), **(more or {})}
        known = await self._runtime.store.run(statements.insert_meta(record, "subscribers"))
        if known and any(known[0].get(name) != value for name, value in subscription.record().items()):
            changed = statements.change_meta(subscription.name, subscription.record(), (), "subscribers")
            await self._runtime.store.run(changed, self._scope)
        self._runtime.hint(HINT)
        return known[0] if known else record

    async def find(self, name: str) -> dict[str, Any]:
        """Return the record of a subscriber; raise `SubscriberNotFound`."""
        found = await self._runtime.store.run(statements.find_meta(name, "subscribers"), self._scope)
        if not found:
            raise SubscriberNotFound(f"no subscriber {name!r:.100}", field="name")
        return found[0]

    async def remove(self, name: str) -> None:
        """Remove a subscriber and its dead letters; raise `SubscriberNotFound`."""
        removed = await self._runtime.store.run(statements.remove_subscriber(name), self._scope)
        await self._runtime.store.run(statements.discard_dead(name), self._scope)
        self._runtime.hint(HINT)
        if not removed:
            raise SubscriberNotFound(f"no subscriber {name!r:.100}", field="name")

    async def position(self, name: str) -> int:
        """Return up to which position of the log everything is settled."""
        return int((await self.find(name))["position"])

    async def lag(self, name: str) -> int:
        """Return how many entries of the log are after the subscriber's position, wanted or not."""
        position = await self.position(name)
        return max(0, await self._log.tail() - position)

    async def replay(self, name: str, after: int | datetime | None) -> None:
        """Put a subscriber back, or forward: to a position, to what was logged at an instant or later, to the begin."""
        position = await self._position_of(after)
        # Without its lease, whoever drives it can store nothing more, and begins again.
        change = statements.change_meta(name, {"position": position, "held": []}, ("lease",), "subscribers")
        if not await self._runtime.store.run(change, self._scope):
            raise SubscriberNotFound(f"no subscriber {name!r:.100}", field="name")
        self._runtime.hint(HINT)

    async def dead_letters(self, name: str, limit: int) -> tuple[DeadLetter, ...]:
        """Return events that were put aside, the oldest first."""
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1000:
            raise InvalidQuery("limit: a whole number from 1 to 1000", field="limit")
        await self.find(name)
        found = await self._runtime.store.run(statements.find_dead(name, limit), self._scope)
        return tuple(read_letter(letter) for letter in found)

    async def retry(self, name: str, letters: Sequence[DeadLetter | int] | None) -> int:
        """Let dead letters be delivered again; return how many there are."""
        count = await self._runtime.store.run(statements.retry_dead(name, _positions(letters)), self._scope)
        self._runtime.hint(HINT)
        return count

    async def discard(self, name: str, letters: Sequence[DeadLetter | int] | None) -> int:
        """Remove dead letters; return how many there were."""
        return await self._runtime.store.run(statements.discard_dead(name, _positions(letters)), self._scope)

    async def _position_of(self, after: int | datetime | None) -> int:
        if after is None:
            return 0
        if isinstance(after, datetime):
            return await self._log.before(check_instant(after, "after"))
        return min(check_position(after), await self._log.tail())


def stored_name(name: str, scope: Scope) -> str:
    """Return the name under which a subscriber is stored: no two scopes share one, because names have no / and no :."""
    if scope.everything:
        return f"all:{name}"
    return name if scope.tenant_id is None else f"{scope.tenant_id}/{name}"


def check_position(after: object) -> int:
    """Return a position of the log; raise `InvalidQuery` where it is none."""
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        raise InvalidQuery("after: a position of the log, a whole number of at least 0", field="after")
    return after


def _positions(letters: Sequence[DeadLetter | int] | None) -> list[int] | None:
    if letters is None:
        return None
    return [letter.position if isinstance(letter, DeadLetter) else check_position(letter) for letter in letters]
