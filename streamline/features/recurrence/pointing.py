"""Saying where in an expression something is wrong."""

from __future__ import annotations

from streamline.errors import ScheduleError

_SHOWN = 120


def refused(field: str, text: str, begin: int, end: int, why: str) -> ScheduleError:
    """Return an error that shows the expression, and below it a line that points to the part that is wrong.

    Args:
        field: The argument.
        text: The expression.
        begin: Where the wrong part begins.
        end: Where it ends.
        why: What is wrong, and what is allowed.
    """
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:_SHOWN])
    begin = min(begin, len(shown))
    marks = " " * begin + "^" * max(1, min(end, len(shown)) - begin)
    return ScheduleError(f"{field}: {why}\n    {shown}\n    {marks}", field=field)
