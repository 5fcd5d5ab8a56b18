"""Users' filters over payloads: few operators, none that runs code or a pattern, and bounded in every direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from streamline.domain.payloads import ANY
from streamline.errors import InvalidQuery, SerializationError

EVENT_ROOTS = ("input", "state", "metadata")
MATCH_ROOTS = ("input", "metadata", "output")
CONDITIONS_MAX = 100
NESTED_MAX = 16
VALUES_MAX = 1_000
_LOGICAL = frozenset({"$and", "$or", "$nor"})
_LISTED = frozenset({"$in", "$nin", "$all"})
_OPERATORS = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$exists", "$size", "$not", "$elemMatch", *_LISTED})


def checked_match(match: object, roots: Sequence[str] = MATCH_ROOTS) -> Mapping[str, Any]:
    """Return a user's filter as it is stored, if it reaches only payloads, runs no code and is not too large.

    Raises:
        InvalidQuery: Another field or operator, a value that cannot be stored, more than 100 conditions, lists of more
            than 1,000 values, or conditions in one another more than 16 deep.
    """
    if not isinstance(match, Mapping):
        raise InvalidQuery("match: a mapping", field="match")
    try:
        encoded: Mapping[str, Any] = ANY.encode(match, "match").value
    except SerializationError as error:
        raise InvalidQuery(str(error), field="match") from error
    _Checker(roots).check_filter(encoded, 1)
    return encoded


class _Checker:
    """One pass over a filter, counting its conditions."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = roots
        self._conditions = 0

    def check_filter(self, match: Mapping[str, Any], depth: int) -> None:
        self._check_depth(depth)
        for key, value in match.items():
            self._count()
            if key in _LOGICAL:
                self._check_parts(key, value, depth)
            elif key.split(".", maxsplit=1)[0] not in self._roots:
                _refuse(f"fields begin with {', '.join(self._roots)}")
            else:
                self._check_value(value, depth)

    def _check_parts(self, key: str, parts: object, depth: int) -> None:
        if not isinstance(parts, list) or not parts:
            _refuse(f"{key} takes a list of filters")
        for part in parts:
            if not isinstance(part, Mapping) or not part:
                _refuse(f"{key} takes a list of filters, none of them empty")
            self.check_filter(part, depth + 1)

    def _check_value(self, value: object, depth: int) -> None:
        self._check_depth(depth)
        if isinstance(value, Mapping):
            for key, part in value.items():
                self._check_key(key, part)
                self._check_value(part, depth + 1)
        elif isinstance(value, list):
            for part in value:
                self._check_value(part, depth + 1)

    def _check_key(self, key: str, value: object) -> None:
        if not key.startswith("$"):
            return
        self._count()
        if key not in _OPERATORS:
            _refuse(f"operator {key:.40} is not allowed")
        if key in _LISTED and isinstance(value, list) and len(value) > VALUES_MAX:
            _refuse(f"{key} takes at most {VALUES_MAX:,} values")

    def _count(self) -> None:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            _refuse(f"at most {CONDITIONS_MAX} conditions")

    @staticmethod
    def _check_depth(depth: int) -> None:
        if depth > NESTED_MAX:
            _refuse(f"nested at most {NESTED_MAX} deep")


def _refuse(why: str) -> NoReturn:
    raise InvalidQuery(f"match: {why}", field="match")
