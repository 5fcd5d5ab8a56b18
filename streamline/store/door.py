"""The one door to the database.

Whatever the engine wants done goes through `Store.run`: here, once, a statement gets its tenant scope, its write
concern, its place in a batch, its shelter from cancellation, its retries, and the answer to whether it took effect.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, overload

import pymongo
from bson.errors import BSONError
from pymongo.errors import DocumentTooLarge, OperationFailure, PyMongoError

from streamline.clock import Clock
from streamline.errors import (
    CorruptRun,
    IdempotencyConflict,
    InvalidQuery,
    PayloadTooLarge,
    SerializationError,
    StoreUnavailable,
    StreamlineError,
)
from streamline.ids import new_token
from streamline.settings import Settings
from streamline.store import outcomes, statements
from streamline.store.driver import DURABLE, Driver
from streamline.store.explaining import examined_in, explain_command
from streamline.store.lanes import Lanes, Traffic, fitting
from streamline.store.operations import (
    Aggregate,
    Document,
    Extend,
    Extended,
    Find,
    Insert,
    Inserted,
    Keep,
    Remove,
    Write,
    WriteEach,
    WriteMany,
)
from streamline.store.outcomes import is_passing, is_passing_code, translate
from streamline.store.scope import EVERYTHING, Scope

T = TypeVar("T")
Send = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

_DUPLICATE = 11000
_UNREADABLE = frozenset({2, 9, 14})
_TOO_LARGE = (10334, 17419, 17420)
_INSERTS_IN_A_COMMAND = 500
_ASKED_BY_USERS = frozenset({"count_runs", "find_page", "find_run", "find_tenants"})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0


class Store:
    """Sends statements and says what came of them."""

    def __init__(self, driver: Driver, settings: Settings, clock: Clock) -> None:
        self.driver = driver
        self._clock = clock
        self._patience = settings.patience_seconds
        self._gate = asyncio.Semaphore(settings.operations)
        self._sheltered: set[asyncio.Task[Any]] = set()
        traffic = Traffic(settings.lanes)
        self._updates: Lanes[Write, bool] = Lanes(self._send_updates, traffic, batch=settings.batch)
        self._inserts: Lanes[Insert, Inserted] = Lanes(self._send_inserts, traffic, batch=settings.batch)
        self._mark_prefix, self._mark_numbers = new_token(), itertools.count()

    def new_mark(self) -> str:
        """Return a text that no other write leaves in a run."""
        return f"{self._mark_prefix}.{next(self._mark_numbers):x}"

    @overload
    async def run(self, statement: Write, scope: Scope = EVERYTHING) -> bool: ...
    @overload
    async def run(self, statement: Insert, scope: Scope = EVERYTHING) -> Inserted: ...
    @overload
    async def run(self, statement: WriteMany | WriteEach | Remove, scope: Scope = EVERYTHING) -> int: ...
    @overload
    async def run(self, statement: Extend, scope: Scope = EVERYTHING) -> Extended: ...
    @overload
    async def run(self, statement: Find | Aggregate | Keep, scope: Scope = EVERYTHING) -> list[Document]: ...

    async def run(
        self,
        statement: Write | Insert | WriteMany | WriteEach | Find | Aggregate | Keep | Extend | Remove,
        scope: Scope = EVERYTHING,
    ) -> bool | Inserted | int | Extended | list[Document]:
        """Carry out `statement` within `scope`.

        Returns:
            For a `Write` whether it took effect, for an `Insert` what is there now, for a `WriteMany` how many runs
            matched, for a `Remove` how many documents are gone, for a `Keep` those that were there already, for an
            `Extend` how far it came, for reads the documents.

        Raises:
            StoreUnavailable: The database did not answer in the time allowed; a write may or may not have happened.
        """
        if isinstance(statement, Insert):
            return await self.submit(statement, scope)
        if isinstance(statement, Keep):
            return await self._keep_within(statement, scope)
        if isinstance(statement, Extend):
            return await self.sheltered(lambda: self._extend(statement))
        if isinstance(statement, WriteEach):
            rows = [{"q": scope.confine(query), "u": update} for query, update in statement.rows]
            return int((await self.sheltered(lambda: self._update(rows)))["n"])
        confined = statement if scope.everything else replace(statement, filter=scope.confine(statement.filter))
        if isinstance(confined, Write):
            return await self._updates.carry(confined)
        return await self.sheltered(lambda: self._send(confined))

    async def _keep_within(self, statement: Keep, scope: Scope) -> list[Document]:
        admitted = scope.everything or all(scope.admits(document) for document in statement.documents)
        assert admitted, "what is kept is kept within its tenant's scope"
        return [each for each in await self.sheltered(lambda: self._keep(statement)) if scope.admits(each)]

    def submit(self, statement: Insert, scope: Scope = EVERYTHING) -> asyncio.Future[Inserted]:
        """Hand in an insert and return its answer to come, for callers that must learn of it even when cancelled."""
        assert scope.admits(statement.document), "a run is inserted within its tenant's scope"
        return self._inserts.carry(statement)

    async def insert_many(self, inserts: Sequence[Insert]) -> list[Inserted]:
        """Carry out many inserts in few commands; answers come in the order given."""
        answers: list[Inserted | Exception] = []
        while len(answers) < len(inserts):
            rest = inserts[len(answers) :]
            answers += await self._send_inserts(list(rest[: fitting(rest, min(len(rest), _INSERTS_IN_A_COMMAND))]))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if not isinstance(answer, Exception)]

    async def send_within(self, statement: WriteMany, seconds: float) -> bool:
        """Send a write once; return whether it was answered in time: else some, all or none of it has happened."""
        try:
            with pymongo.timeout(seconds):
                await self._send(statement)
        except _Unacknowledged:
            return False
        except PyMongoError as error:
            if not is_passing(error):
                raise translate(error) from error
            return False
        return True

    async def examined_by(self, statement: Find | Aggregate, scope: Scope) -> int | None:
        """Let the server carry out a read once more and return how many documents it looks at; None if it fails."""
        command = explain_command(self.driver.runs, replace(statement, filter=scope.confine(statement.filter)))
        try:
            return examined_in(await self.driver.command(command))
        except PyMongoError:
            return None

    async def close(self) -> None:
        """Let what was handed in reach the database, then close the client if it was made here."""
        pending = {asyncio.ensure_future(lanes.drain()) for lanes in (self._updates, self._inserts)} | self._sheltered
        _, late = await asyncio.wait(pending, timeout=self._patience)
        for task in late:
            task.cancel()
        await self.driver.close()

    async def _keep(self, statement: Keep) -> list[Document]:
        collection, documents = self.driver.named(statement.collection), list(statement.documents)
        answer = await self._write({"insert": collection, "documents": documents, "ordered": False})
        taken = answer.get("writeErrors", ())
        if any(error["code"] != _DUPLICATE for error in taken):
            raise refusal(next(error for error in taken if error["code"] != _DUPLICATE))
        if not taken:
            return []
        ids = [documents[error["index"]]["_id"] for error in taken]
        return await self.driver.find(collection, Find(statement.name, {"_id": {"$in": ids}}))

    async def _extend(self, statement: Extend) -> Extended:
        collection, documents = self.driver.named(statement.collection), list(statement.documents)
        answer = await self._write({"insert": collection, "documents": documents, "ordered": True})
        refused = answer.get("writeErrors", ())
        if not refused:
            return Extended(len(documents))
        if refused[0]["code"] != _DUPLICATE:
            raise refusal(refused[0])
        return Extended(refused[0]["index"], tuple(refused[0]["keyPattern"]))

    async def _send(self, statement: WriteMany | Find | Aggregate | Remove) -> int | list[Document]:
        if isinstance(statement, Remove):
            rows = [{"q": statement.filter, "limit": 0}]
            answer = await self._write({"delete": self.driver.named(statement.collection), "deletes": rows})
            return int(answer["n"])
        if isinstance(statement, WriteMany):
            multi = {"multi": True} if not statement.upsert else {"upsert": True}
            rows = [{"q": statement.filter, "u": statement.update, **multi}]
            answer = await self._update(rows, self.driver.named(statement.collection))
            return int(answer["n"])
        if statement.name not in _ASKED_BY_USERS:
            return await self._read(statement)
        # However much users ask, heartbeats and claims do not wait behind it.
        async with self._gate:
            return await self._read(statement)

    async def _read(self, statement: Find | Aggregate) -> list[Document]:
        try:
            if isinstance(statement, Find):
                return await self.driver.find(self.driver.named(statement.collection), statement)
            return await self.driver.aggregate(self.driver.runs, statement)
        except OperationFailure as error:
            if error.code in _UNREADABLE:
                # The engine's own reads are well-formed: what the server cannot read came in with a user's filter.
                raise InvalidQuery("match: the database cannot read the filter", field="match") from error
            raise
        except DocumentTooLarge as error:
            raise InvalidQuery("match: the filter is larger than the database takes", field="match") from error

    async def _send_updates(self, batch: list[Write]) -> list[bool | Exception]:
        rows = [{"q": write.filter, "u": write.update} for write in batch]
        answer = await self.persist(lambda: self._update(rows))
        failed = {error["index"]: refusal(error) for error in answer.get("writeErrors", ())}
        if answer["n"] == len(batch):
            return [True] * len(batch)
        shown = await self._shown_marks([write.run_id for write in batch])
        return [failed.get(i, write.mark in shown.get(write.run_id, ())) for i, write in enumerate(batch)]

    async def _send_inserts(self, batch: list[Insert]) -> list[Inserted | Exception]:
        documents = [insert.document for insert in batch]
        answer = await self.persist(lambda: self._insert(documents))
        taken = {error["index"]: error for error in answer.get("writeErrors", ())}
        if not taken:
            return ["inserted"] * len(batch)
        shown = await self._shown_marks([batch[i].run_id for i in taken])
        return [self._what_is_there(insert, taken.get(i), shown) for i, insert in enumerate(batch)]

    @staticmethod
    def _what_is_there(
        insert: Insert, error: dict[str, Any] | None, shown: dict[str, tuple[str, ...]]
    ) -> Inserted | Exception:
        if error is None or insert.mark in shown.get(insert.run_id, ()):
            return "inserted"
        if error["code"] != _DUPLICATE:
            return refusal(error)
        return "id_taken" if insert.run_id in shown else outcomes.taken_by(error)

    async def _shown_marks(self, run_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        found = await self.persist(lambda: self.driver.find(self.driver.runs, statements.find_marks(run_ids)))
        return {each["_id"]: (each.get("mark", ""), each.get("born", "")) for each in found}

    async def _update(self, rows: list[dict[str, Any]], collection: str | None = None) -> dict[str, Any]:
        return await self._write({"update": collection or self.driver.runs, "updates": rows, "ordered": False})

    async def _insert(self, documents: list[Document]) -> dict[str, Any]:
        return await self._write({"insert": self.driver.runs, "documents": documents, "ordered": False})

    async def write_in(self, session: Any, command: dict[str, Any]) -> dict[str, Any]:
        """Send a write in a session, once; in its transaction where one is under way."""
        return await self._write(command, partial(self.driver.command_in, session))

    async def _write(self, command: dict[str, Any], send: Send | None = None) -> dict[str, Any]:
        try:
            answer = await (send(command) if send else self.driver.command({**command, "writeConcern": DURABLE}))
        except DocumentTooLarge as error:
            raise PayloadTooLarge("the run would be larger than the database can hold", field="run") from error
        except (BSONError, OverflowError, UnicodeError) as error:
            raise SerializationError(f"a value cannot be stored: {type(error).__name__}", field="run") from error
        doubts = [answer["writeConcernError"]] if "writeConcernError" in answer else []
        if any(is_passing_code(doubt.get("code")) for doubt in (*doubts, *answer.get("writeErrors", ()))):
            raise _Unacknowledged
        return answer

    async def sheltered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Cancelling a call in flight closes its connection and may leave the write done: let it finish instead."""
        task = asyncio.ensure_future(self.persist(call))
        self._sheltered.add(task)
        task.add_done_callback(self._sheltered.discard)
        return await asyncio.shield(task)

    async def persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` does, called again while the database is away; raise `StoreUnavailable` in the end."""
        deadline, pause = self._clock.monotonic() + self._patience, _FIRST_PAUSE
        while True:
            try:
                return await call()
            except _Unacknowledged as error:
                last: PyMongoError = error
            except PyMongoError as error:
                if not is_passing(error):
                    raise translate(error) from error
                last = error
            if self._clock.monotonic() + pause > deadline:
                raise StoreUnavailable(f"the database did not answer for {self._patience:g} s") from last
            await self._clock.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)


class _Unacknowledged(PyMongoError):
    """The server cannot confirm that all of a command took effect and will last; all of it can be sent again."""


def refusal(error: dict[str, Any]) -> StreamlineError:
    """Return what to raise for a statement that the database refuses: sending it again would change nothing."""
    if error.get("code") == _DUPLICATE and outcomes.taken_by(error) == "slot_taken":
        return outcomes.SlotTaken("somebody else was faster")
    if error.get("code") == _DUPLICATE:
        return IdempotencyConflict("the idempotency key is held by another active run", field="idempotency_key")
    if error.get("code") in _TOO_LARGE:
        return PayloadTooLarge("the run would be larger than the database can hold", field="run")
    return CorruptRun(f"the database cannot apply a write to what is stored (code {error.get('code')})")
