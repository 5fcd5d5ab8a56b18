"""The second door: statements in a session, and in its transaction where one is under way.

They share no batch with others. Inside a transaction nothing is sent again by itself, for only the transaction as a
whole can be tried again; what the driver says about that reaches whoever can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pymongo.errors import OperationFailure, PyMongoError

from streamline.errors import InvalidPolicy, StreamlineError, UnsafeDeployment
from streamline.store import statements
from streamline.store.door import Store, refusal
from streamline.store.operations import Document, Find, Insert, Inserted, Write
from streamline.store.outcomes import taken_by, translate

Committed = Literal["committed", "aborted", "unknown"]

_DUPLICATE = 11000
_ILLEGAL_OPERATION = 20
_TRANSIENT = "TransientTransactionError"


class InSession:
    """Carries out statements in a session.

    Args:
        store: The store that the session belongs to.
        session: The driver's session.
    """

    def __init__(self, store: Store, session: Any) -> None:
        self._store = store
        self.session = session

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is under way."""
        return bool(self.session.in_transaction)

    async def insert(self, inserts: Sequence[Insert]) -> list[Inserted]:
        """Insert runs with one command; answers come in the order given.

        Raises:
            PyMongoError: The transaction is over, and may succeed when it is tried again.
            UnsafeDeployment: The server has no transactions.
        """
        documents = [insert.document for insert in inserts]
        answer = await self._write({"insert": self._store.driver.runs, "documents": documents, "ordered": False})
        taken = {error["index"]: error for error in answer.get("writeErrors", ())}
        return ["inserted" if i not in taken else await self._taken(each, taken[i]) for i, each in enumerate(inserts)]

    async def update(self, write: Write) -> bool:
        """Carry out a guarded write; return whether its guard held. Errors as for `insert`."""
        row = {"q": write.filter, "u": write.update}
        answer = await self._write({"update": self._store.driver.runs, "updates": [row]})
        for error in answer.get("writeErrors", ()):
            raise refusal(error)
        return bool(answer["n"] == 1)

    async def find(self, statement: Find) -> list[Document]:
        """Return the documents that a read finds, as the transaction sees them. Errors as for `insert`."""
        driver = self._store.driver
        command: dict[str, Any] = {"find": driver.named(statement.collection), "filter": statement.filter}
        command |= {"limit": statement.limit, "singleBatch": True, "projection": dict(statement.projection or {})}
        command |= {"sort": dict(statement.sort)} | ({"hint": statement.hint} if statement.hint else {})
        try:
            answer = await driver.command_in(self.session, command)
        except PyMongoError as error:
            if _is_transient(error):
                raise
            raise _told(error) from error
        return list(answer["cursor"]["firstBatch"])

    async def commit(self) -> Committed:
        """Commit; may be repeated while the outcome is unknown."""
        try:
            await self._store.driver.commit(self.session)
        except PyMongoError as error:
            return "aborted" if _is_transient(error) else "unknown"
        return "committed"

    async def end(self) -> None:
        """End the session, and a transaction that was not committed with it."""
        await self._store.driver.end(self.session)

    async def _write(self, command: dict[str, Any]) -> dict[str, Any]:
        if not self.in_transaction:
            return await self._store.sheltered(lambda: self._store.write_in(self.session, command))
        try:
            return await self._store.write_in(self.session, command)
        except PyMongoError as error:
            if _is_transient(error):
                raise
            raise _told(error) from error

    async def _taken(self, insert: Insert, error: dict[str, Any]) -> Inserted:
        if error["code"] != _DUPLICATE:
            raise refusal(error)
        if "_id" not in error.get("keyPattern", {}):
            return taken_by(error)
        if self.in_transaction:
            return "id_taken"
        found = await self._store.run(statements.find_marks([insert.run_id]))
        return "inserted" if found and found[0].get("born") == insert.mark else "id_taken"


async def begin(store: Store) -> InSession:
    """Return a session of its own with a transaction under way.

    Raises:
        UnsafeDeployment: The server has no transactions.
    """
    check_transactions(store)
    return InSession(store, await store.driver.start_transaction())


def check_session(store: Store, session: Any) -> InSession:
    """Return a caller's session for statements of the engine's.

    Raises:
        InvalidPolicy: It is no session of the app's own client, or has ended.
        UnsafeDeployment: It has a transaction under way, and the server has none.
    """
    if not store.driver.owns(session):
        raise InvalidPolicy("session: one that app.database.client has started", field="session")
    if session.has_ended:
        raise InvalidPolicy("session: it has ended", field="session")
    if session.in_transaction:
        check_transactions(store)
    return InSession(store, session)


def check_transactions(store: Store) -> None:
    """Raise `UnsafeDeployment` where the server has no transactions."""
    if not store.driver.has_transactions:
        raise _no_transactions()


def is_conflict(error: BaseException | None) -> bool:
    """Return whether a transaction came to nothing for a reason that may have passed when it is tried again.

    A handler may have caught such an error and raised another for it: the transaction is over nevertheless.
    """
    while error is not None:
        if isinstance(error, PyMongoError) and _is_transient(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_transient(error: PyMongoError) -> bool:
    return error.has_error_label(_TRANSIENT)


def _told(error: PyMongoError) -> StreamlineError:
    """Return what to raise for an error that trying the transaction again does not mend."""
    if isinstance(error, OperationFailure) and error.code == _ILLEGAL_OPERATION:
        return _no_transactions()
    return translate(error)


def _no_transactions() -> UnsafeDeployment:
    return UnsafeDeployment(
        "transactions need a replica set: the database is a standalone server; a set of one member will do",
        field="target",
    )
