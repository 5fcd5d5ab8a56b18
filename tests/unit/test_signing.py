"""Signatures of webhooks: as the standard has them, and refused alike whatever is wrong."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime, timedelta
from email import message_from_string
from typing import Any

import httpx
import pytest
import starlette.datastructures

from streamline import verify_webhook
from streamline.errors import InvalidInput, InvalidKey, InvalidPolicy, SignatureInvalid
from streamline.features.signing import key_of, new_secret, signed_headers

# The example of the Standard Webhooks libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SENT = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": ID, "webhook-timestamp": "1614265330", "webhook-signature": SIGNATURE}
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()


def verify(body: Any = BODY, headers: Any = HEADERS, secret: Any = SECRET, **options: Any) -> str:
    return verify_webhook(body, headers, secret, **{"now": SENT, **options})


def signed(body: bytes = BODY, secret: str = SECRET, webhook_id: str = ID, timestamp: str = "1614265330") -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def test_the_vector_of_the_standard() -> None:
    assert signed_headers(ID, SENT, BODY, [SECRET]) == HEADERS
    assert verify() == ID
    assert signed() == SIGNATURE


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_"), key_of(SECRET), [OTHER, SECRET], (SECRET,)])
@pytest.mark.parametrize("body", [BODY, BODY.decode(), bytearray(BODY), memoryview(BODY)])
def test_a_secret_and_a_body_in_every_form(secret: Any, body: Any) -> None:
    assert verify(body, secret=secret) == ID


@pytest.mark.parametrize(
    "headers",
    [
        {name.title(): value for name, value in HEADERS.items()},
        list(HEADERS.items()),
        [(name.encode(), value.encode()) for name, value in HEADERS.items()],
        message_from_string("".join(f"{name}: {value}\n" for name, value in HEADERS.items())),
        starlette.datastructures.Headers(HEADERS),
        httpx.Headers(HEADERS),
        {**HEADERS, "content-type": "application/json"},
        {**HEADERS, "webhook-signature": f"v1a,nonsense v2,x {signed(secret=OTHER)} {SIGNATURE}"},
    ],
)
def test_headers_as_frameworks_give_them(headers: Any) -> None:
    assert verify(headers=headers) == ID


def test_a_secret_that_is_being_replaced() -> None:
    headers = signed_headers(ID, SENT, BODY, [OTHER, SECRET])
    assert headers["webhook-signature"] == f"{signed(secret=OTHER)} {SIGNATURE}"
    for known in (SECRET, OTHER, [SECRET, OTHER]):
        assert verify(headers=headers, secret=known) == ID


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_within_the_tolerance(seconds: int) -> None:
    assert verify(now=SENT + timedelta(seconds=seconds)) == ID


WRONG: dict[str, dict[str, Any]] = {
    "no headers": {"headers": {}},
    **{f"without {name}": {"headers": {k: v for k, v in HEADERS.items() if k != name}} for name in HEADERS},
    **{f"empty {name}": {"headers": {**HEADERS, name: ""}} for name in HEADERS},
    **{f"twice {name}": {"headers": [*HEADERS.items(), (name.title(), HEADERS[name])]} for name in HEADERS},
    **{f"no text for {name}": {"headers": {**HEADERS, name: None}} for name in HEADERS},
    "another secret": {"secret": OTHER},
    "another body": {"body": b'{"test":2432232314}'},
    "an empty body": {"body": b""},
    "another id": {"headers": {**HEADERS, "webhook-id": "msg_other"}},
    "an id with a full stop": {
        "headers": {**HEADERS, "webhook-id": "a.b", "webhook-signature": signed(webhook_id="a.b")}
    },
    "a full stop moved": {  # signed as id "a", at 1, of the body "1614265330.x"
        "headers": {
            "webhook-id": "a.1",
            "webhook-timestamp": "1614265330",
            "webhook-signature": signed(b"1614265330.x", webhook_id="a", timestamp="1"),
        },
        "body": b"x",
    },
    "another time": {"headers": {**HEADERS, "webhook-timestamp": "1614265331"}},
    **{
        f"the time {time!r}": {
            "headers": {**HEADERS, "webhook-timestamp": time, "webhook-signature": signed(timestamp=time)}
        }
        for time in ("+1614265330", "1614265330.0", " 1614265330", "1614265330,1614265330", "now", "1" * 13)
    },
    "v0": {"headers": {**HEADERS, "webhook-signature": SIGNATURE.replace("v1", "v0")}},
    "v1a": {"headers": {**HEADERS, "webhook-signature": SIGNATURE.replace("v1", "v1a")}},
    "no version": {"headers": {**HEADERS, "webhook-signature": SIGNATURE.removeprefix("v1,")}},
    "an empty signature": {"headers": {**HEADERS, "webhook-signature": "v1,"}},
    "a cut signature": {"headers": {**HEADERS, "webhook-signature": SIGNATURE[:-4]}},
    "signatures by a comma": {"headers": {**HEADERS, "webhook-signature": f"v1,x,{SIGNATURE}"}},
    "letters beyond ASCII": {"headers": {**HEADERS, "webhook-signature": "v1,é\udc80"}},
    "too old": {"now": SENT + timedelta(seconds=301)},
    "of the future": {"now": SENT - timedelta(seconds=301)},
    "too old for a short tolerance": {"now": SENT + timedelta(seconds=11), "tolerance": "10s"},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_in_the_same_words(name: str) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        verify(**WRONG[name])
    assert str(caught.value) == "the webhook's signature is missing, wrong or too old"
    assert (caught.value.http_status, caught.value.field) == (401, None)


@pytest.mark.parametrize(
    "bad",
    ["", "whsec_", b"", b"x" * 23, b"x" * 65, "whsec_short", "not base64!" * 5, None, 5, [], [SECRET, ""], [None]],
)
def test_a_secret_of_another_form_is_the_receivers_own_mistake(bad: Any) -> None:
    with pytest.raises(InvalidKey) as caught:
        verify(secret=bad)
    assert caught.value.field == "secret"


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        ({"body": {"test": 1}}, InvalidInput, "body"),
        ({"body": None}, InvalidInput, "body"),
        *[({"headers": bad}, InvalidInput, "headers") for bad in (None, 5, "webhook-id: x", [1], [("a",)])],
        ({"tolerance": "soon"}, InvalidPolicy, "tolerance"),
        ({"now": datetime(2024, 1, 1)}, InvalidPolicy, "now"),
    ],
)
def test_other_arguments_that_cannot_be_meant(options: dict[str, Any], error: Any, field: str) -> None:
    with pytest.raises(error) as caught:
        verify(**options)
    assert caught.value.field == field


def test_without_a_time_the_machines_is_meant() -> None:
    headers = signed_headers(ID, datetime.now(UTC), BODY, [SECRET])
    assert verify_webhook(BODY, headers, SECRET) == ID
    with pytest.raises(SignatureInvalid):
        verify_webhook(BODY, HEADERS, SECRET)


def test_new_secrets_differ_and_are_strong() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(each.startswith("whsec_") and len(key_of(each)) == 32 for each in made)
