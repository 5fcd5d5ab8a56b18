"""Tokens of hooks: the same for the same place, another for every other, and not to be had from what is stored."""

from __future__ import annotations

import re
from typing import Any

import pytest

from streamline.features.tokens import TokenMaker, hash_of

PLACE: tuple[Any, ...] = ("tenant", "run", "step", "step", 0, "hook#1")


def test_a_place_has_one_token_that_needs_no_quoting() -> None:
    token = TokenMaker("secret").token(*PLACE)
    assert token == TokenMaker(b"secret").token(*PLACE)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)


def test_no_two_places_share_a_token() -> None:
    maker = TokenMaker("secret")
    others = [
        (None, *PLACE[1:]),
        ("", *PLACE[1:]),
        ("tenantr", "un", *PLACE[2:]),
        (*PLACE[:4], 1, PLACE[5]),
        (*PLACE[:3], "undo", *PLACE[4:]),
        (*PLACE[:5], "hook#2"),
        (*PLACE, ""),
        PLACE[:5],
    ]
    assert len({maker.token(*place) for place in [PLACE, *others]}) == len(others) + 1


def test_another_secret_makes_other_tokens() -> None:
    assert TokenMaker("a").token(*PLACE) != TokenMaker("b").token(*PLACE)


def test_what_is_stored_is_neither_the_token_nor_leads_to_it() -> None:
    token = TokenMaker("secret").token(*PLACE)
    assert token not in hash_of(token)
    assert re.fullmatch(r"[0-9a-f]{64}", hash_of(token))
    assert hash_of(token) == hash_of(token) != hash_of(token + "a")


@pytest.mark.parametrize("stranger", ["", "\0", "é\U0001f600", "\ud800", "$ne", "x" * 100_000])
def test_whatever_a_stranger_sends_has_a_hash(stranger: str) -> None:
    assert len(hash_of(stranger)) == 64
