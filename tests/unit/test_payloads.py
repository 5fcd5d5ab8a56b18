"""What can be stored, and that it comes back as it was."""

from __future__ import annotations

import collections
import enum
import functools
import ipaddress
import pathlib
import types
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from streamline.domain.payloads import ANY, Codec, check_input
from streamline.errors import DefinitionError, InvalidInput, SerializationError, StreamlineError

NOON = datetime(2024, 2, 29, 12, 0, 0, 123000, tzinfo=UTC)


class Colour(enum.Enum):
    RED = "red"


class Mood(str, enum.Enum):  # noqa: UP042 - what users write
    GOOD = "good"


class Tone(enum.StrEnum):
    LOW = "low"


class Level(enum.IntEnum):
    HIGH = 3


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Item(BaseModel):
    name: str
    price: Decimal = Decimal("1.10")
    when: datetime | None = None
    tags: frozenset[str] = frozenset()


class Order(BaseModel):
    items: list[Item]
    by: dict[uuid.UUID, Item] = Field(default_factory=dict)
    mood: Mood = Mood.GOOD


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    id: uuid.UUID
    day: date
    numbers: set[int]
    pair: tuple[int, str]


class Camel(BaseModel):
    two_humps: bool = Field(alias="twoHumps")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.a


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Tree(BaseModel):
    children: list[Tree] = Field(default_factory=list)


class Numbers(RootModel[list[int]]):
    pass


@dataclass
class Point:
    x: int
    y: float = 0.5
    more: list[int] = field(default_factory=list)


@pydantic_dataclass
class Checked:
    day: date


class Pair(NamedTuple):
    first: int
    second: str


class Typed(TypedDict, total=False):
    a: int
    day: date


class Text(str):
    __slots__ = ()


class Moment(datetime):
    pass


def stored_and_back(codec: Codec, value: Any) -> Any:
    """Through the encoding of the database, too."""
    document = bson.encode({"v": codec.encode(value, "v").value})
    return codec.decode(bson.decode(document, CodecOptions(tz_aware=True, tzinfo=UTC))["v"])


ANNOTATED: list[tuple[Any, Any]] = [
    (int, 5),
    (float, 0.1),
    (str, "é\0\U0001f600"),
    (bool, True),
    (bytes, b"\0\xff"),
    (type(None), None),
    (datetime, NOON),
    (date, date(2024, 2, 29)),
    (time, time(1, 2, 3, 4)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (uuid.UUID, uuid.UUID(int=7)),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("1E+400")),
    (complex, 1 + 2j),
    (set[int], {1, 2}),
    (frozenset[date], frozenset({date(2024, 1, 1)})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (collections.deque[int], collections.deque([1, 2])),
    (dict[int, date], {1: date(2024, 1, 1)}),
    (dict[uuid.UUID, int], {uuid.UUID(int=1): 1}),
    (dict[str, list[tuple[int, Decimal]]], {"$a.b": [(1, Decimal(2))]}),
    (Colour, Colour.RED),
    (Mood, Mood.GOOD),
    (Tone, Tone.LOW),
    (Level, Level.HIGH),
    (Rights, Rights.READ | Rights.WRITE),
    (dict[Mood, int], {Mood.GOOD: 1}),
    (Literal["a", 5], 5),
    (pathlib.Path, pathlib.Path("/a/b")),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("127.0.0.1")),
    (Point, Point(1, more=[1, 2])),
    (Checked, Checked(date(2024, 1, 1))),
    (Pair, Pair(1, "b")),
    (Typed, {"a": 1, "day": date(2024, 1, 1)}),
    (Item, Item(name="pear", when=NOON, tags=frozenset({"$t"}))),
    (Order, Order(items=[Item(name="pear")], by={uuid.UUID(int=1): Item(name="plum")})),
    (Strict, Strict(id=uuid.UUID(int=1), day=date(2024, 1, 1), numbers={1}, pair=(1, "a"))),
    (Camel, Camel(twoHumps=True)),
    (Computed, Computed(a=1)),
    (Tree, Tree(children=[Tree(), Tree(children=[Tree()])])),
    (Numbers, Numbers([1, 2])),
    (list[Cat | Dog], [Dog(), Cat()]),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog()),
    (int | str, "5"),
    (Item | None, None),
    (Annotated[int, Field(gt=3)], 5),
    (list[Any], [1, "a", None, {"k": [NOON]}]),
    (object, {"a": [1]}),
]


@pytest.mark.parametrize(("annotation", "value"), ANNOTATED, ids=lambda part: repr(part)[:50])
def test_annotated_values_come_back_as_they_were(annotation: Any, value: Any) -> None:
    back = stored_and_back(Codec(annotation), value)
    assert back == value
    assert type(back) is type(value)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner)
    ),
    max_leaves=30,
).filter(lambda value: not holds_a_reference(value))


def holds_a_reference(value: Any) -> bool:
    if isinstance(value, dict):
        return {"$ref", "$id"} <= value.keys() or any(map(holds_a_reference, value.values()))
    return isinstance(value, list) and any(map(holds_a_reference, value))


@given(PLAIN)
def test_plain_data_comes_back_equal(value: Any) -> None:
    encoded = ANY.encode(value, "v")
    assert encoded.value == value
    assert ANY.decode(encoded.value) == value
    stored = bson.encode({"v": encoded.value})
    assert bson.decode(stored, CodecOptions(tz_aware=True, tzinfo=UTC))["v"] == value


@given(PLAIN)
def test_the_size_is_about_that_of_the_stored_value(value: Any) -> None:
    size, stored = ANY.encode(value, "v").size, len(bson.encode({"v": value})) - 8
    assert stored / 2 - 16 <= size <= 2 * stored + 16


@given(
    st.builds(
        Item,
        name=st.text(st.characters(exclude_categories=["Cs"])),
        price=st.decimals(allow_nan=False, allow_infinity=False),
        when=st.none() | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0)),
        tags=st.frozensets(st.text(st.characters(exclude_categories=["Cs"]))),
    )
)
def test_models_come_back_equal(item: Item) -> None:
    assert stored_and_back(Codec(Item), item) == item


def cycle() -> list[Any]:
    circle: list[Any] = []
    circle.append({"again": circle})
    return circle


def nested(depth: int) -> Any:
    return functools.reduce(lambda inner, _: [inner], range(depth), 1)


class WithAny(BaseModel):
    anything: Any


UNSTORABLE: list[tuple[Any, str]] = [
    (float("nan"), "v"),
    (float("inf"), "v"),
    ([1, {"a": float("-inf")}], "v[1].a"),
    (2**63, "v"),
    (-(2**63) - 1, "v"),
    ({"a": [2**64]}, "v.a[0]"),
    ("\ud800", "v"),
    ({"a": "x\udfff"}, "v.a"),
    ({"\ud800": 1}, "v"),
    ({"a\0": 1}, "v"),
    ({1: 1}, "v key"),
    ({None: 1}, "v key"),
    ({True: 1}, "v key"),
    ({(1, 2): 1}, "v key"),
    ({1: 1, "1": 2}, "v key"),
    ({"$ref": "users", "$id": 7}, "v"),
    ({"deep": [{"$ref": 1, "$id": 2, "more": 3}]}, "v.deep[0]"),
    ({1, 2}, "v"),
    (frozenset(), "v"),
    (Decimal("1.1"), "v"),
    ({"total": Decimal(1)}, "v.total"),
    (date(2024, 1, 1), "v"),
    (time(1), "v"),
    (timedelta(1), "v"),
    (uuid.UUID(int=1), "v"),
    (pathlib.PurePosixPath("/a"), "v"),
    (Colour.RED, "v"),
    (Item(name="x"), "v"),
    (Point(1), "v"),
    (bytearray(b"x"), "v"),
    (memoryview(b"x"), "v"),
    (range(3), "v"),
    (1j, "v"),
    (object(), "v"),
    (int, "v"),
    (len, "v"),
    (ValueError("x"), "v"),
    (..., "v"),
    (types, "v"),
    (datetime(2024, 1, 1), "v"),
    ([datetime(2024, 1, 1)], "v[0]"),
    (nested(65), ""),
    (SecretStr("x"), "v"),
]


@pytest.mark.parametrize(("value", "where"), UNSTORABLE, ids=lambda part: repr(part)[:40])
def test_what_would_not_come_back_is_refused_with_its_path(value: Any, where: str) -> None:
    for codec in (ANY, Codec(Any), Codec(list[Any]), Codec(WithAny)):
        given = (
            {"anything": value} if codec.annotation is WithAny else [value] if codec.annotation == list[Any] else value
        )
        with pytest.raises(SerializationError) as caught:
            codec.encode(given, "v")
        assert caught.value.code == "payload.serialization"
        assert str(caught.value.field).startswith("v")
    if where:
        with pytest.raises(SerializationError) as caught:
            ANY.encode(value, "v")
        assert caught.value.field == where


@pytest.mark.parametrize(
    "make", [lambda: nested(500), lambda: nested(100_000), cycle], ids=["deep", "very deep", "circle"]
)
@pytest.mark.parametrize("annotation", [Any, list[Any], WithAny, object], ids=repr)
def test_endless_nesting_is_refused(make: Callable[[], Any], annotation: Any) -> None:
    value = make()
    with pytest.raises(SerializationError) as caught:
        Codec(annotation).encode({"anything": value} if annotation is WithAny else value, "v")
    assert len(str(caught.value)) < 500
    assert len(str(caught.value.field)) <= 100


def test_values_are_not_repeated_in_errors() -> None:
    for value in (Decimal("123456789"), {"hunter2"}, [Item(name="hunter2")], SecretStr("hunter2")):
        with pytest.raises(SerializationError) as caught:
            ANY.encode(value, "v")
        assert "hunter2" not in str(caught.value)
        assert "123456789" not in str(caught.value)
    with pytest.raises(InvalidInput) as caught_input:
        check_input(Codec(int), "hunter2")
    assert "hunter2" not in str(caught_input.value)


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("make", [coroutine, generator, async_generator], ids=lambda make: make.__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value]}], ids=["plain", "nested"])
def test_what_is_not_finished_asks_whether_await_was_forgotten(
    make: Callable[[], Any], wrap: Callable[[Any], Any]
) -> None:
    with pytest.raises(SerializationError, match="await") as caught:
        ANY.encode(wrap(make()), "v")
    assert str(caught.value.field).startswith("v")
    with pytest.raises(SerializationError):
        Codec(dict[str, list[Any]]).encode({"a": [make()]}, "v")


def test_nesting_up_to_the_limit_is_stored() -> None:
    assert stored_and_back(ANY, nested(64)) == nested(64)
    deep: Any = 1
    for _ in range(64):
        deep = {"k": deep}
    assert stored_and_back(ANY, deep) == deep


def test_values_are_normalised_as_documented() -> None:
    assert ANY.encode((1, (2,)), "v").value == [1, [2]]
    assert type(ANY.encode(Text("x"), "v").value) is str
    assert type(ANY.encode(Level.HIGH, "v").value) is int
    assert type(ANY.encode(collections.OrderedDict(a=1), "v").value) is dict
    assert type(ANY.encode(Moment(2024, 1, 1, tzinfo=UTC), "v").value) is datetime
    assert ANY.encode({Text("k"): 1}, "v").value == {"k": 1}


def test_instants_become_utc_with_whole_milliseconds() -> None:
    east = datetime(2024, 1, 1, 12, 0, 0, 123999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    for codec in (ANY, Codec(datetime)):
        stored = codec.encode(east, "v").value
        assert stored == datetime(2024, 1, 1, 6, 30, 0, 123000, tzinfo=UTC)
        assert stored.utcoffset() == timedelta()


def test_microseconds_are_cut_in_models_with_converted_values_too() -> None:
    class Stamped(BaseModel):
        at: datetime
        id: uuid.UUID
        total: Decimal

    value = Stamped(at=NOON.replace(microsecond=123456), id=uuid.UUID(int=1), total=Decimal("1.1"))
    back = stored_and_back(Codec(Stamped), value)
    assert back == value.model_copy(update={"at": NOON})


def test_a_naive_datetime_is_refused_where_it_is_annotated_too() -> None:
    for annotation, value in ((datetime, datetime(2024, 1, 1)), (dict[str, datetime], {"a": datetime(2024, 1, 1)})):
        with pytest.raises(SerializationError, match="time zone"):
            Codec(annotation).encode(value, "v")


class TwoAliases(BaseModel):
    a: int = Field(validation_alias="read", serialization_alias="written")


class Excluding(BaseModel):
    a: int = Field(exclude=True)


class Serializing(BaseModel):
    a: int

    @field_serializer("a")
    def write(self, a: int) -> str:
        return f"no. {a}"


class Picky(BaseModel):
    day: date

    @field_validator("day", mode="before")
    @classmethod
    def refuse(cls, day: Any) -> Any:
        if isinstance(day, str):
            raise ValueError("no text")
        return day


@pytest.mark.parametrize(
    "value",
    [TwoAliases(read=1), Excluding(a=1), Serializing(a=1), Picky(day=date(2024, 1, 1))],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_read_again_is_refused_when_written(value: BaseModel) -> None:
    with pytest.raises(SerializationError) as caught:
        Codec(type(value)).encode(value, "v")
    assert str(caught.value.field).startswith("v")


class Unequal:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")

    __hash__ = None  # type: ignore[assignment]


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: Unequal


def test_values_that_cannot_be_dumped_or_compared_are_refused() -> None:
    with pytest.raises(SerializationError):
        Codec(Arbitrary).encode(Arbitrary(thing=Unequal()), "v")


@pytest.mark.parametrize(
    ("annotation", "value", "where"),
    [
        (int, "five", "input"),
        (Order, {}, "input.items"),
        (Order, {"items": [{"name": 5}]}, "input.items.0.name"),
        (list[int], [1, "x"], "input.1"),
        (dict[str, int], {"a": "x"}, "input.a"),
        (Strict, {"id": "x"}, "input.id"),
        (Annotated[int, Field(gt=3)], 1, "input"),
        (Point, {"x": "y"}, "input.x"),
    ],
    ids=repr,
)
def test_an_input_that_does_not_fit_names_what_is_wrong(annotation: Any, value: Any, where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_input(Codec(annotation), value)
    assert caught.value.field == where
    assert str(caught.value).startswith(where)
    assert caught.value.http_status == 422


def test_a_validator_that_raises_something_else_is_reported_as_a_bad_input() -> None:
    class Odd(BaseModel):
        a: int

        @field_validator("a")
        @classmethod
        def explode(cls, a: int) -> int:
            raise KeyError("inside the validator")

    with pytest.raises(StreamlineError):
        check_input(Codec(Odd), {"a": 1})


def test_an_input_is_converted_to_its_type() -> None:
    assert check_input(Codec(int), "5").value == 5
    assert check_input(Codec(Point), {"x": 1}).value == {"x": 1, "y": 0.5, "more": []}
    assert check_input(Codec(datetime), "2024-02-29T12:00:00.123Z").value == NOON


@pytest.mark.parametrize("bad", [5, "NoSuchType", Unequal, list[Unequal], bytearray], ids=repr)
def test_a_type_that_pydantic_cannot_handle_is_refused_at_definition(bad: Any) -> None:
    with pytest.raises(DefinitionError) as caught:
        Codec(bad, "output of step charge")
    assert caught.value.field == "output of step charge"


def test_encoding_does_not_change_what_it_is_given() -> None:
    value = {"a": [1, (2, 3)], "t": NOON.replace(microsecond=123456)}
    before = {"a": [1, (2, 3)], "t": NOON.replace(microsecond=123456)}
    encoded = ANY.encode(value, "v").value
    encoded["a"].append(5)
    assert value == before
