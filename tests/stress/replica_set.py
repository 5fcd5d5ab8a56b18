"""A replica set of three on the loopback interface, for tests that take members away from it.

Elections are quick (1 s), so that a test sees many. A member that hangs in ROLLBACK or RECOVERING, which 6.0 does now
and then, is restarted and counted in `infrastructure`: it is the server's trouble, not the engine's, and not hidden.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stress.deadline import until
from tests.stress.member import SET_NAME, Member

_PRIMARY, _SECONDARY = 1, 2
_SETTLED = 3  # successive looks at a healthy set: a member may be SECONDARY for a moment before it rolls back
_STUCK_SECONDS = 15.0


class ReplicaSet:
    """Three members; `infrastructure` tells what had to be done about members that hung by themselves."""

    def __init__(self, directory: Path) -> None:
        self.members = [Member(directory / f"member{i}") for i in range(3)]
        self.infrastructure: list[str] = []
        self._unwell_since: dict[int, float] = {}

    @property
    def uri(self) -> str:
        """The connection string, with the options for a quick failover of clients that streamline did not make."""
        hosts = ",".join(member.host for member in self.members)
        return f"mongodb://{hosts}/?replicaSet={SET_NAME}"

    def start(self) -> None:
        """Begin the members and wait until all are well."""
        for member in self.members:
            member.spawn()
        for member in self.members:
            until(lambda member=member: member.ask("ping"), within=60, what="a new member")  # type: ignore[misc]
        settings = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 250}
        hosts = [{"_id": i, "host": member.host} for i, member in enumerate(self.members)]
        config = {"_id": SET_NAME, "members": hosts, "settings": settings}
        answer = self.members[0].ask("replSetInitiate", seconds=30, value=config)
        assert answer, "the set cannot be initiated"
        self.heal(within=60)

    def primary(self, *, within: float = 30.0) -> Member:
        """Return the member that accepts writes, once there is one."""
        return until(self._primary, within=within, every=0.05, what="a primary")  # type: ignore[return-value]

    def secondaries(self) -> list[Member]:
        """Return the others."""
        primary = self.primary()
        return [member for member in self.members if member is not primary]

    def step_down(self) -> Member:
        """Make the primary step down; return it."""
        primary = self.primary()
        primary.ask("replSetStepDown", seconds=5, value=10, secondaryCatchUpPeriodSecs=2)
        return primary

    def heal(self, *, within: float = 90.0) -> None:
        """Continue and restart everybody, and wait until all members are well and level with one another."""
        for member in self.members:
            if member.frozen:
                member.thaw()
            if not member.alive:
                member.spawn()
        looks = 0
        deadline = time.monotonic() + within
        while looks < _SETTLED:
            assert time.monotonic() < deadline, f"the set does not heal: {self.states()}"
            looks = looks + 1 if self._is_well() else 0
            self._restart_stuck()
            time.sleep(0.1)
        self._unwell_since.clear()

    def states(self) -> list[int | None]:
        """Return each member's state as it sees it itself: 1 PRIMARY, 2 SECONDARY, 3 RECOVERING, 9 ROLLBACK."""
        answers = [member.ask("replSetGetStatus") for member in self.members]
        return [None if answer is None else answer["myState"] for answer in answers]

    def close(self) -> None:
        """Kill every member."""
        for member in self.members:
            member.close()

    def _primary(self) -> Member | None:
        for member in self.members:
            answer = member.ask("hello")
            if answer is not None and answer.get("isWritablePrimary"):
                return member
        return None

    def _is_well(self) -> bool:
        if sorted(state or 0 for state in self.states()) != [_PRIMARY, _SECONDARY, _SECONDARY]:
            return False
        primary = self._primary()
        status = None if primary is None else primary.ask("replSetGetStatus")
        if status is None:
            return False
        times = [member["optimeDate"] for member in status["members"] if member.get("health") == 1]
        return len(times) == len(self.members) and (max(times) - min(times)).total_seconds() <= 2

    def _restart_stuck(self) -> None:
        now = time.monotonic()
        for i, state in enumerate(self.states()):
            if state in (_PRIMARY, _SECONDARY):
                self._unwell_since.pop(i, None)
            elif now - self._unwell_since.setdefault(i, now) > _STUCK_SECONDS:
                self.infrastructure.append(f"member {i} hung in state {state} and was restarted")
                self._unwell_since.pop(i)
                self.members[i].kill()
                self.members[i].spawn()


@contextmanager
def replica_set(directory: Path) -> Iterator[ReplicaSet]:
    """A set for the time of a ``with``; its data is deleted."""
    members = ReplicaSet(directory)
    try:
        members.start()
        yield members
    finally:
        members.close()
        shutil.rmtree(directory, ignore_errors=True)
