"""Turning users' values into what the database keeps, such that the same values come back.

A `Codec` stands for one annotation. It validates and encodes through pydantic, then walks the result once: leaves the
database knows stay as they are, others become their JSON form. Where such a leaf occurs, the encoded value is revived
and compared on the spot, so that a value that would not come back equal is refused when it is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from inspect import isasyncgen, isawaitable, isgenerator
from typing import Any

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from streamline.errors import DefinitionError, InvalidInput, SerializationError, StreamlineError

DEPTH_MAX = 64
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, dict, list, tuple})
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


@dataclass(slots=True)
class Encoded:
    """A value as it will be stored, and its size there in bytes."""

    value: Any
    size: int


NO_VALUE = Encoded(None, 0)


def copied(stored: Any) -> Any:
    """Return a copy of a stored value: what a handler does to its values must not change what is known to be stored."""
    if type(stored) is dict:
        return {key: copied(item) for key, item in stored.items()}
    return [copied(item) for item in stored] if type(stored) is list else stored


class Codec:
    """Encodes and revives the values of one annotation; ``Any`` passes plain data through."""

    __slots__ = ("_adapter", "_revives", "annotation")

    def __init__(self, annotation: Any, where: str = "annotation") -> None:
        """Prepare for `annotation`; raise `DefinitionError` where pydantic cannot handle it."""
        self.annotation = annotation
        self._adapter = None if annotation in (Any, object) else _adapter(annotation, where)
        self._revives = self._adapter is not None and annotation not in _PLAIN

    def encode(self, value: Any, where: str, *, refuse: type[StreamlineError] = SerializationError) -> Encoded:
        """Validate `value` and return it as it will be stored.

        Args:
            value: What the user gave.
            where: Root of the path in errors, such as ``"input"``.
            refuse: Error raised where the value does not fit the annotation.

        Raises:
            SerializationError: The value cannot be kept so that the same value comes back; names the path.
        """
        if type(value) not in _PLAIN:
            _refuse_unfinished(value, where)
        fitting = value if self._adapter is None else self._validate(value, where, refuse)
        walker = _Walker()
        plain = fitting if self._adapter is None else self._dump(fitting, where)
        encoded = walker.encode(plain, where, 0)
        if walker.converted is not None or self._revives:
            self._check_revival(encoded, fitting, where, walker)
        return Encoded(encoded, walker.size)

    def decode(self, stored: Any) -> Any:
        """Return the value of the annotated type that `stored` was encoded from, sharing nothing with it."""
        stored = copied(stored)
        if self._adapter is None:
            return stored
        try:
            return self._adapter.validate_python(stored)
        except ValidationError:
            # A strict model takes text for a UUID or a date only from JSON.
            return self._adapter.validate_json(to_json(stored))

    def _validate(self, value: Any, where: str, refuse: type[StreamlineError]) -> Any:
        assert self._adapter is not None
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise refuse(_explain(error, where), field=_first_field(error, where)) from error
        except RecursionError:
            raise SerializationError(f"{where}: nested deeper than {DEPTH_MAX}, or in a circle", field=where) from None
        except Exception as error:
            raise refuse(f"{where}: its validator raised {type(error).__name__}", field=where) from error

    def _dump(self, value: Any, where: str) -> Any:
        assert self._adapter is not None
        try:
            return self._adapter.dump_python(value, by_alias=True, round_trip=True, warnings=False)
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise SerializationError(f"{where}: {error}", field=where) from error

    def _check_revival(self, encoded: Any, value: Any, where: str, walker: _Walker) -> None:
        try:
            revived = self.decode(encoded)
            same = _is_same(revived, value) or (walker.cut and self._again(revived) == encoded)
        except Exception as error:
            name = type(error).__name__
            raise SerializationError(f"{where}: the value could not be read again: {name}", field=where) from error
        if not same:
            path, kind = walker.converted or where, walker.kind or type(value).__name__
            raise SerializationError(
                f"{path}: {kind} would not come back as it was; annotate the value with a type that pydantic can "
                "revive, or convert it yourself",
                field=path,
            )

    def _again(self, revived: Any) -> Any:
        """Encode what came back: microseconds are cut from instants, and only that may make it differ."""
        return None if self._adapter is None else _Walker().encode(self._dump(revived, ""), "", 0)


ANY = Codec(Any)


def codec_of(value: Any) -> Codec:
    """Return the codec for a value without an annotation: its own type's, where that is not plain data."""
    kind = type(value)
    if kind in _PLAIN - {tuple} or kind is datetime:
        return ANY
    try:
        return Codec(kind)
    except DefinitionError:
        return ANY


def size_of(stored: Any) -> int:
    """Return the bytes of a stored value, as they were counted when it was encoded."""
    walker = _Walker()
    walker.encode(stored, "", 0)
    return walker.size


# Subclasses are kept as what they are in the end, whatever their __str__ and the like make of them.
_AS_PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (datetime, lambda value: datetime.fromisoformat(value.isoformat())),
)


_IDENTITY: Any = object.__eq__


def _is_same(revived: Any, value: Any) -> bool:
    if _IDENTITY is type(value).__eq__:  # it says nothing about the value; that it came back at all has to do
        return type(revived) is type(value)
    return bool(revived == value)


def _adapter(annotation: Any, where: str) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError, NameError) as error:
        raise DefinitionError(f"{where}: pydantic cannot handle this type: {error}", field=where) from error
    if not adapter.pydantic_complete:
        raise DefinitionError(f"{where}: pydantic cannot resolve this type; give the type itself", field=where)
    return adapter


def _explain(error: ValidationError, where: str) -> str:
    lines = [
        f"{_path(where, item['loc'])}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False)[:5]
    ]
    return "; ".join(lines)


def _first_field(error: ValidationError, where: str) -> str:
    return _path(where, error.errors(include_input=False, include_url=False)[0]["loc"])


def _path(where: str, location: tuple[int | str, ...]) -> str:
    return ".".join([where, *map(str, location)])


def _refuse_unfinished(value: Any, where: str) -> None:
    if isawaitable(value) or isgenerator(value) or isasyncgen(value) or type(value).__name__ == "SerializationIterator":
        close: Any = getattr(value, "close", None)
        if close is not None and not isasyncgen(value):
            close()
        raise SerializationError(
            f"{where}: {type(value).__name__} cannot be stored; did you forget await?", field=where
        )


class _Walker:
    """One pass over a value: checks it, makes it storable and counts its bytes as BSON."""

    __slots__ = ("converted", "cut", "kind", "size")

    def __init__(self) -> None:
        self.size = 0
        self.cut = False
        self.converted: str | None = None
        self.kind = ""

    def encode(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value, path)
        if value is None or kind is bool:
            self.size += 1
            return value
        if kind is int:
            return self._integer(value, path)
        if kind is dict:
            return self._mapping(value, path, depth)
        if kind is list or kind is tuple:
            return self._sequence(value, path, depth)
        if kind is float:
            return self._number(value, path)
        if kind is datetime:
            return self._instant(value, path)
        if kind is bytes:
            self.size += 5 + len(value)
            return value
        return self._other(value, path, depth)

    def _text(self, value: str, path: str) -> str:
        try:
            self.size += 5 + (len(value) if value.isascii() else len(value.encode()))
        except UnicodeEncodeError:
            raise SerializationError(f"{path}: the text holds a lone surrogate", field=path) from None
        return value

    def _integer(self, value: int, path: str) -> int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise SerializationError(f"{path}: the integer exceeds 64 bits", field=path)
        self.size += 8
        return value

    def _number(self, value: float, path: str) -> float:
        if not math.isfinite(value):
            raise SerializationError(f"{path}: NaN and infinity are not supported", field=path)
        self.size += 8
        return value

    def _instant(self, value: datetime, path: str) -> datetime:
        if value.tzinfo is None:
            raise SerializationError(f"{path}: a datetime needs a time zone", field=path)
        self.size += 8
        self.cut = self.cut or value.microsecond % 1000 != 0
        try:
            return value.astimezone(UTC).replace(microsecond=value.microsecond // 1000 * 1000)
        except OverflowError:
            raise SerializationError(f"{path}: the instant is out of range", field=path) from None

    def _sequence(self, value: list[Any] | tuple[Any, ...], path: str, depth: int) -> list[Any]:
        self._go_deeper(path, depth)
        self.size += 5 + 4 * len(value)
        return [self.encode(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]

    def _mapping(self, value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
        self._go_deeper(path, depth)
        if "$ref" in value and "$id" in value:
            raise SerializationError(f"{path}: the keys $ref and $id together are reserved by the database", field=path)
        self.size += 5
        return {self._key(key, path): self.encode(item, f"{path}.{key}", depth + 1) for key, item in value.items()}

    def _key(self, key: Any, path: str) -> str:
        if type(key) is not str:
            self._note(key, f"{path} key")
            key = key.value if isinstance(key, Enum) else key
            key = str.__str__(key) if isinstance(key, str) else str(to_jsonable_python(key, fallback=str))
        if "\0" in key:
            raise SerializationError(f"{path}: a key contains NUL", field=path)
        try:
            self.size += 2 + len(key.encode())
        except UnicodeEncodeError:
            raise SerializationError(f"{path}: a key holds a lone surrogate", field=path) from None
        plain: str = key
        return plain

    def _other(self, value: Any, path: str, depth: int) -> Any:
        _refuse_unfinished(value, path)
        self._go_deeper(path, depth)
        self._note(value, path)
        if isinstance(value, Enum):
            return self.encode(value.value, path, depth + 1)
        for plain, as_plain in _AS_PLAIN:
            if isinstance(value, plain):
                return self.encode(as_plain(value), path, depth)
        if isinstance(value, Mapping):
            return self.encode(dict(value), path, depth)
        return self.encode(_jsonable(value, path), path, depth + 1)

    def _note(self, value: Any, path: str) -> None:
        if self.converted is None:
            self.converted, self.kind = path, type(value).__name__

    @staticmethod
    def _go_deeper(path: str, depth: int) -> None:
        if depth >= DEPTH_MAX:
            raise SerializationError(f"{path[:80]}…: nested deeper than {DEPTH_MAX}, or in a circle", field=path[:80])


def _jsonable(value: Any, path: str) -> Any:
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise SerializationError(f"{path}: {type(value).__name__} is not supported", field=path) from error


def check_input(codec: Codec, value: Any) -> Encoded:
    """Return a run's input as it will be stored; raise `InvalidInput` where it does not fit."""
    return codec.encode(value, "input", refuse=InvalidInput)
