"""Endpoints of outgoing webhooks: what is asked of them, what is stored, what is shown, what is sent to them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydantic_core import to_json

from streamline.domain.record import Record
from streamline.domain.run import Event
from streamline.errors import InvalidInput

HEADERS_MAX, VALUE_MAX = 20, 1024
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?", re.ASCII)
_OURS = frozenset({
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie", "expect", "host",
    "http2-settings", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
})  # fmt: skip
_OUR_PREFIXES = ("webhook-", "proxy-", "sec-", "svix-")


@dataclass(frozen=True, slots=True)
class WebhookEndpoint(Record):
    """An endpoint that webhooks are sent to, as it was stored when it was read; its secret is not in it.

    Attributes:
        id: Its name.
        url: Where webhooks are posted to.
        on: Globs over event types: what it is told of.
        workflow: The only workflow whose runs it is told of; None for all.
        headers: Sent with each webhook; they may hold credentials, so they are not shown by ``repr``.
        enabled: Whether anything is sent.
        tenant_id: Whose runs it is told of.
        created_at: When it was made.
        updated_at: When somebody changed it last.
        position: The place in the event log up to which it has been told, but for what is held back and tried again.
        failures: Failed deliveries since the last one that succeeded.
        failing_since: When the first of these was.
        last_error: What the last of these met.
        disabled_at: Since when nothing is sent.
        disabled_reason: Why.
    """

    id: str
    url: str
    on: tuple[str, ...]
    workflow: str | None
    headers: Mapping[str, str] = field(repr=False)
    enabled: bool
    tenant_id: str | None
    created_at: datetime
    updated_at: datetime
    position: int
    failures: int = 0
    failing_since: datetime | None = None
    last_error: str | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None


@dataclass(frozen=True, slots=True)
class CreatedWebhook(WebhookEndpoint):
    """A new endpoint with its secret, which is shown this once.

    Attributes:
        secret: What its webhooks are signed with; for `streamline.verify_webhook` at the receiver.
    """

    secret: str = field(default="", repr=False)


def with_secret(endpoint: WebhookEndpoint, secret: str) -> CreatedWebhook:
    """Return the endpoint with its secret."""
    values = {each.name: getattr(endpoint, each.name) for each in fields(endpoint)}
    return CreatedWebhook(**values, secret=secret)


def check_headers(headers: object) -> list[list[str]]:
    """Return headers as they are stored: pairs, because a name may have a dot; raise `InvalidInput`."""
    if headers is None:
        return []
    if not isinstance(headers, Mapping) or len(headers) > HEADERS_MAX:
        raise InvalidInput(f"headers: a mapping of at most {HEADERS_MAX} names to values", field="headers")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidInput("headers: a name is of letters, digits and -", field="headers")
        if name.lower() in _OURS or name.lower().startswith(_OUR_PREFIXES):
            raise InvalidInput(f"headers: {name} is not for you to set", field="headers")
        if not isinstance(value, str) or len(value) > VALUE_MAX or not _HEADER_VALUE.fullmatch(value):
            raise InvalidInput(f"headers: a value is 1 to {VALUE_MAX} visible ASCII characters", field="headers")
    if len({name.lower() for name in headers}) < len(headers):
        raise InvalidInput("headers: each name once", field="headers")
    return [[name, value] for name, value in headers.items()]


def webhook_id_of(run_id: str, seq: int) -> str:
    """Return the id of an event's webhook: the same for each attempt, and without a full stop, which would end it."""
    return f"{quote(run_id, safe=':-_').replace('.', '%2E')}:{seq}"


def body_of(event: Event) -> bytes:
    """Return the JSON that is sent about an event."""
    told = {
        "type": event.type,
        "run_id": event.run_id,
        "seq": event.seq,
        "at": event.at,
        "workflow": event.workflow,
        "tenant_id": event.tenant_id,
        "step": event.step,
        "attempt": event.attempt,
        "data": event.data,
    }
    return to_json(told, bytes_mode="base64", inf_nan_mode="strings", fallback=str)


def named(endpoint_id: str, tenant_id: str | None) -> str:
    """Return the name of the subscriber that an endpoint is: nobody else's, because names have no colon."""
    return ":".join(["webhook", *([] if tenant_id is None else [tenant_id]), endpoint_id])


def read_endpoint(stored: Mapping[str, Any]) -> WebhookEndpoint:
    """Return the endpoint that a subscriber's document holds."""
    webhook = stored["webhook"]
    told = ("id", "url", "updated_at", "failures", "failing_since", "last_error", "disabled_reason")
    return WebhookEndpoint(
        **{name: webhook[name] for name in told if name in webhook},
        on=tuple(stored["on"]),
        workflow=stored.get("workflow"),
        headers=dict(webhook["headers"]),
        enabled="disabled_at" not in stored,
        tenant_id=stored.get("tenant_id"),
        created_at=stored["created_at"],
        position=stored["position"],
        disabled_at=stored.get("disabled_at"),
    )


def secrets_in_force(stored: Sequence[Mapping[str, Any]], now: datetime) -> list[str]:
    """Return what to sign with: the newest secret, and older ones that receivers may still go by."""
    return [each["secret"] for each in stored if each.get("until") is None or each["until"] > now]
