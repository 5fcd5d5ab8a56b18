"""What may be told of an exception: not the messages that quote the values which they are about."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Final

from streamline.domain.failures import message_of

_QUOTING: Final = ("bson", "gridfs", "motor", "pydantic", "pydantic_core", "pymongo")
_CHAIN_MAX: Final = 20


def discreet_message(error: BaseException) -> str:
    """Return the message of an exception, unless it may hold values."""
    if str(type(error).__module__).partition(".")[0] in _QUOTING:
        return "(its message may hold values, and is not told)"
    return message_of(error)


def where(error: BaseException) -> str:
    """Return where an exception was raised, and nothing of why."""
    return "".join(traceback.format_tb(error.__traceback__))


class Discretion(logging.Filter):
    """Writes the tracebacks of a logger's records out, without what quotes values."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record; the traceback is in it as text."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            record.exc_text = "\n".join(_told(each) for each in reversed(list(_chain(error))))
            record.exc_info = None
        return True


def _told(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return f"Traceback (most recent call last):\n{where(error)}{kind}: {discreet_message(error)}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from, the last first."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen and len(seen) < _CHAIN_MAX:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
