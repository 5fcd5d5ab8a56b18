"""What names, versions, keys, tags and metadata may look like."""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.domain.names import (
    check_key,
    check_metadata,
    check_name,
    check_path_key,
    check_run_id,
    check_tags,
    check_version,
)
from streamline.errors import InvalidKey, InvalidName


@pytest.mark.parametrize("good", ["a", "A", "0a", "my-valid_id-123", "a" * 100, "1-2", "constructor"])
def test_a_good_name_is_returned(good: str) -> None:
    assert check_name(good, "step id") == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "0",
        "12",
        "a" * 101,
        "a" * 2000,
        "a.b",
        "$x",
        "$[]",
        "a.$",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\0",
        "a/b",
        "../status",
        "<b>",
        "_a",
        "-a",
        "__class__",
        "__proto__",
        "é",
        "\u0661",
        "\u202eabc",
        "a\r\nb",
        "\x1b[31m",
        None,
        5,
        b"a",
        ["a"],
        {"$ne": None},
    ],
    ids=repr,
)
def test_a_bad_name_is_refused_with_its_field(bad: Any) -> None:
    with pytest.raises(InvalidName) as caught:
        check_name(bad, "step id")
    assert caught.value.field == "step id"
    assert caught.value.http_status == 422


@given(st.text())
def test_no_name_can_be_read_as_a_path_an_operator_or_a_position(text: str) -> None:
    try:
        check_name(text, "x")
    except InvalidName:
        return
    assert not set(text) & set(".$\0 /<>\n")
    assert not text.isdigit()
    assert 1 <= len(text) <= 100
    assert text.isascii()


@pytest.mark.parametrize("good", ["1", "1.0.0", "2024-01-01", "v2", "1.0.0-rc.1+build", "a" * 64])
def test_a_good_version_is_returned(good: str) -> None:
    assert check_version(good) == good


@pytest.mark.parametrize(
    "bad", ["", ".1", "-1", "1 0", "1@2", "$1", "1\0", "1\n", "é", "a" * 65, None, 1, 1.0], ids=repr
)
def test_a_bad_version_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidName) as caught:
        check_version(bad)
    assert caught.value.field == "version"


@pytest.mark.parametrize("good", ["k", "order:1", "$k", "a.b", " ", "é", "k" * 256, "\U0001f600" * 256, "\n"])
def test_a_good_key_is_returned(good: str) -> None:
    assert check_key(good, "idempotency_key") == good
    assert check_run_id(good) == good


@pytest.mark.parametrize(
    "bad", ["", "k" * 257, "a\0b", "\ud800", None, 5, 5.0, True, b"k", ["k"], {"$ne": None}, {"k": 1}], ids=repr
)
def test_a_bad_key_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidKey) as caught:
        check_key(bad, "idempotency_key")
    assert caught.value.field == "idempotency_key"
    with pytest.raises(InvalidKey):
        check_path_key(bad, "key")


@pytest.mark.parametrize("bad", ["a.b", ".", "a.", "$a", "$"])
def test_a_part_of_a_path_holds_no_dot_and_begins_with_no_dollar(bad: str) -> None:
    with pytest.raises(InvalidKey):
        check_path_key(bad, "key")


@pytest.mark.parametrize("good", ["a$", "items[3]/fetch", "0", "#1", "é"])
def test_other_parts_of_a_path_are_fine(good: str) -> None:
    assert check_path_key(good, "key") == good


def test_tags_are_kept_in_order_and_once() -> None:
    assert check_tags(["b", "a", "b"]) == ["b", "a"]
    assert check_tags(("x",)) == ["x"]
    assert sorted(check_tags({"x", "y"})) == ["x", "y"]
    assert check_tags(frozenset()) == []
    assert len(check_tags([str(i) for i in range(32)] * 2)) == 32


@pytest.mark.parametrize(
    "bad", ["tag", None, 5, {"a": 1}, [1], [None], [""], ["a\0"], ["t" * 257], iter(["a"])], ids=repr
)
def test_bad_tags_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidKey) as caught:
        check_tags(bad)
    assert str(caught.value.field).startswith("tags")


def test_more_than_32_tags_are_refused() -> None:
    with pytest.raises(InvalidKey, match="at most 32"):
        check_tags([str(i) for i in range(33)])


@pytest.mark.parametrize("given", [{}, {"a": {"$b.c": 1}}, OrderedDict(a=1), MappingProxyType({"a": 1})], ids=repr)
def test_metadata_with_keys_that_a_filter_can_reach_is_kept(given: Any) -> None:
    assert check_metadata(given) == dict(given)
    assert type(check_metadata(given)) is dict


@pytest.mark.parametrize(
    "bad", [None, [], "a", {"a.b": 1}, {"$a": 1}, {"": 1}, {5: 1}, {None: 1}, {"a\0": 1}], ids=repr
)
def test_bad_metadata_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidKey) as caught:
        check_metadata(bad)
    assert str(caught.value.field).startswith("metadata")
