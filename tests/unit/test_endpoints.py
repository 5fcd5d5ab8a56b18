"""What an endpoint may be asked for, what is sent to it, and what it keeps to itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamline.domain.run import Event
from streamline.errors import InvalidInput
from streamline.features.endpoints import (
    WebhookEndpoint,
    body_of,
    check_headers,
    secrets_in_force,
    webhook_id_of,
    with_secret,
)

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
ENDPOINT = WebhookEndpoint(
    id="crm",
    url="https://example.com/hook",
    on=("run.*",),
    workflow=None,
    headers={"Authorization": "Bearer hidden"},
    enabled=True,
    tenant_id=None,
    created_at=NOW,
    updated_at=NOW,
    position=7,
)


def test_headers_are_kept_as_pairs() -> None:
    given = {"Authorization": "Bearer x.y-z", "X-A.b": "two words", "x!#$%&'*+^_`|~1": "!"}
    assert check_headers(given) == [[name, value] for name, value in given.items()]
    assert check_headers({}) == check_headers(None) == []


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "a b", "a:", "a\r\nb", "a\n", "é", "a" * 101, "a\0", "(a)", 5, None,
        "Host", "host", "Content-Length", "content-type", "Transfer-Encoding", "Connection", "Cookie", "TE",
        "webhook-id", "Webhook-Signature", "WEBHOOK-TIMESTAMP", "webhook-other", "Proxy-Authorization", "user-agent",
    ],
)  # fmt: skip
def test_a_header_of_this_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_headers({name: "x"})
    assert caught.value.field == "headers"


@pytest.mark.parametrize(
    "value", ["", " ", " a", "a ", "a\r\nEvil: b", "a\nb", "a\rb", "a\0", "é", "\x7f", "a" * 1025, None, 5, b"x", ["x"]]
)
def test_a_header_of_this_value_is_refused_and_not_repeated(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_headers({"X-A": value})
    assert caught.value.field == "headers"
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize("bad", [[("a", "b")], "a: b", 5, {"X-A": "1", "x-a": "2"}, {f"x-{i}": "1" for i in range(21)}])
def test_headers_of_another_form_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidInput):
        check_headers(bad)


@pytest.mark.parametrize(
    ("run_id", "webhook_id"),
    [
        ("01a2-B_c", "01a2-B_c:3"),
        ("order:1", "order:1:3"),
        ("a.b", "a%2Eb:3"),
        ("a b\n\x00", "a%20b%0A%00:3"),
        ("a/b%2E", "a%2Fb%252E:3"),
        ("ü€", "%C3%BC%E2%82%AC:3"),
        ("~", "~:3"),
    ],
)
def test_the_id_of_a_webhook_can_stand_in_a_header_and_be_signed(run_id: str, webhook_id: str) -> None:
    assert webhook_id_of(run_id, 3) == webhook_id


def test_what_is_told() -> None:
    data = {"f": float("nan"), "b": b"\xff", "at": NOW, "deep": [{"$x": (1, 2)}], "other": object}
    event = Event("r", 3, "step.done", NOW, "s", 2, data, workflow="w", version="1", tenant_id="t", position=9)
    told = json.loads(body_of(event))
    assert told == {
        "type": "step.done",
        "run_id": "r",
        "seq": 3,
        "at": "2024-05-01T12:00:00Z",
        "workflow": "w",
        "tenant_id": "t",
        "step": "s",
        "attempt": 2,
        "data": {
            "f": "NaN",
            "b": "_w==",
            "at": "2024-05-01T12:00:00Z",
            "deep": [{"$x": [1, 2]}],
            "other": "<class 'object'>",
        },
    }


def test_what_is_signed_with() -> None:
    newest = {"secret": "new"}
    later, past = {"secret": "older", "until": NOW + timedelta(seconds=1)}, {"secret": "oldest", "until": NOW}
    assert secrets_in_force([newest, later, past], NOW) == ["new", "older"]


def test_a_secret_is_shown_by_nothing_but_its_name() -> None:
    created = with_secret(ENDPOINT, "whsec_hidden")
    assert created.secret == created["secret"] == "whsec_hidden"
    assert created.headers == ENDPOINT.headers == {"Authorization": "Bearer hidden"}
    for shown in (repr(created), str(created), repr(ENDPOINT)):
        assert "hidden" not in shown
    assert "secret" not in ENDPOINT.keys()  # noqa: SIM118 - a Record is no dict
