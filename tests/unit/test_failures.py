"""What is kept of an exception, and whether another attempt is worth it."""

from __future__ import annotations

import asyncio
from typing import Any

import bson
import pytest

from streamline import NonRetriableError, RetryAfter, RetryPolicy
from streamline.domain.failures import MESSAGE_MAX, describe, is_worth_retrying, message_of
from streamline.errors import (
    ContextClosed,
    DefinitionError,
    InvalidKey,
    InvalidPolicy,
    NonDeterministicStep,
    PayloadTooLarge,
    RunNotFound,
    SerializationError,
    StepOutputMissing,
    StepTimeout,
    StoreUnavailable,
)


class Broken(Exception):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


class Odd(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is the oddity


def test_an_error_is_described_by_its_code_type_and_text() -> None:
    assert describe(ValueError("no"), "charge", 2) == {
        "code": "step.error",
        "type": "ValueError",
        "message": "no",
        "step": "charge",
        "attempt": 2,
    }
    assert describe(NonRetriableError("no"), None, 0)["code"] == "step.non_retriable"
    assert describe(StepTimeout("late"), "s", 1)["code"] == "step.timeout"


@pytest.mark.parametrize("code", ["", None, 42, {"$gt": ""}], ids=repr)
def test_a_code_is_text_whatever_a_users_class_says(code: Any) -> None:
    class Own(NonRetriableError):
        pass

    Own.code = code
    assert describe(Own("no"), "s", 1)["code"] == "step.error"


@pytest.mark.parametrize(
    "error",
    [
        Broken(ValueError()),
        Broken(RecursionError()),
        Broken(SystemExit()),
        Broken(KeyboardInterrupt()),
        Broken(asyncio.CancelledError()),
        Odd(),
        Exception(),
        Exception(None),
        Exception("\ud800 lone"),
        Exception("nul \0 inside"),
        Exception(b"\xff"),
        BaseExceptionGroup("g", [ValueError("a"), KeyboardInterrupt()]),
        UnicodeDecodeError("utf8", b"\xff", 0, 1, "bad"),
        SystemExit({"a": 1}),
        KeyError("k"),
        Exception("x" * 10_000_000),
        Exception("é" * 10_000),
        Exception(*range(1000)),
    ],
    ids=lambda error: f"{type(error).__name__}",
)
def test_every_error_can_be_described_and_stored(error: BaseException) -> None:
    kept = describe(error, "s", 1)
    assert isinstance(kept["message"], str)
    assert len(kept["message"]) <= MESSAGE_MAX
    assert bson.decode(bson.encode(kept)) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("mongodb://ann:hunter2@host/db failed", "mongodb://host/db failed"),
        ("mongodb+srv://ann:hunter2@host", "mongodb+srv://host"),
        ("https://token@api.example.com/x and amqp://u:p@q", "https://api.example.com/x and amqp://q"),
        ("postgresql://u:p%40ss@h:5/d", "postgresql://h:5/d"),
        ("mail ann@example.com about https://example.com", "mail ann@example.com about https://example.com"),
        ("redis://:hunter2@h", "redis://h"),
    ],
)
def test_credentials_in_addresses_are_left_out(text: str, kept: str) -> None:
    assert message_of(ValueError(text)) == kept


def test_credentials_at_the_cut_are_left_out() -> None:
    for before in range(MESSAGE_MAX - 40, MESSAGE_MAX + 5, 3):
        assert "hunter2" not in message_of(ValueError("x" * before + " mongodb://ann:hunter2hunter2@host/"))


class Final(Exception):
    retriable = False


class Again(NonRetriableError):
    retriable = True


class Confused(Exception):
    retriable = None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(), True),
        (RetryAfter(5), True),
        (StepTimeout(), True),
        (StoreUnavailable(), True),
        (TimeoutError(), True),
        (ContextClosed(), True),
        (Confused(), True),
        (NonRetriableError(), False),
        (Again(), False),
        (Final(), False),
        (SerializationError(), False),
        (PayloadTooLarge(), False),
        (NonDeterministicStep(), False),
        (InvalidKey(), False),
        (InvalidPolicy(), False),
        (DefinitionError(), False),
        (StepOutputMissing(), False),
        (RunNotFound(), False),
        (SystemExit(), True),
        (KeyboardInterrupt(), True),
        (GeneratorExit(), True),
        (asyncio.CancelledError(), True),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, BaseException) else str(part),
)
def test_another_attempt_is_worth_it_unless_it_must_end_the_same_way(error: BaseException, *, expected: bool) -> None:
    assert is_worth_retrying(error, RetryPolicy()) is expected


def test_only_the_types_of_the_policy_are_tried_again() -> None:
    policy = RetryPolicy(retry_on=(OSError, KeyError))
    tried: list[Any] = [ConnectionError(), TimeoutError(), KeyError()]
    assert all(is_worth_retrying(error, policy) for error in tried)
    assert not is_worth_retrying(ValueError(), policy)
    assert not is_worth_retrying(ValueError(), RetryPolicy(retry_on=()))
    # What ends a process or a task says nothing about the work itself.
    assert is_worth_retrying(SystemExit(), policy)
