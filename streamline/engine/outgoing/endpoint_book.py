"""The records of webhook endpoints: made, read, changed; by any process, whoever delivers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from streamline.domain.names import check_name, check_note
from streamline.engine.runtime import Runtime
from streamline.errors import ExtraMissing, WebhookExists, WebhookNotFound
from streamline.features.addresses import networks_of, target_of
from streamline.features.endpoints import check_headers, named
from streamline.features.signing import key_of, new_secret
from streamline.features.subscriptions import check_globs
from streamline.ids import new_token
from streamline.store import Scope, statements

HINT = "webhooks"
UNFAILED = {"webhook.failures": 0}
FAILING = ("webhook.failing_since", "webhook.last_error")
_SECRETS_KEPT = 5


def can_post() -> bool:
    """Return whether what sends webhooks is installed."""
    try:
        importlib.import_module("httpx")
    except ImportError:
        return False
    return True


class EndpointBook:
    """What is stored of webhook endpoints."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def create(self, endpoint_id: str, wanted: Mapping[str, Any], enabled: bool, scope: Scope) -> dict[str, Any]:
        """Store an endpoint that is told of what happens from now on; return its record.

        Raises:
            ExtraMissing: Nothing can be sent from here.
            WebhookExists: There is one of this id.
        """
        if not can_post():
            raise ExtraMissing('webhooks: they need httpx; install "streamline-mongo[webhooks]"', field="webhooks")
        check_name(endpoint_id, "id")
        checked = self._checked({"url": None, "on": None, "workflow": None, "headers": None, "secret": None, **wanted})
        await self._runtime.outbox.switch_on()
        record = await self._new_record(endpoint_id, checked, enabled, scope)
        for known in await self._runtime.store.run(statements.insert_meta(record, "subscribers")):
            if known["webhook"]["born"] != record["webhook"]["born"]:  # else an answer was lost, and it was sent twice
                raise WebhookExists("id: there is a webhook endpoint of this id", field="id")
        self._runtime.hint(HINT)
        return record

    async def all(self, scope: Scope) -> list[dict[str, Any]]:
        """Return the records of all endpoints in scope, by id."""
        return await self._runtime.store.run(statements.find_webhooks(), scope)

    async def find(self, endpoint_id: str, scope: Scope) -> dict[str, Any]:
        """Return the record of an endpoint; raise `WebhookNotFound`."""
        found = await self._runtime.store.run(statements.find_meta(self.name(endpoint_id, scope), "subscribers"), scope)
        if not found:
            raise _unknown(endpoint_id)
        return found[0]

    async def update(self, endpoint_id: str, wanted: Mapping[str, Any], scope: Scope) -> None:
        """Change what is named, as it is created; it is in force for what is sent from now on."""
        put = self._checked(wanted) | {"webhook.updated_at": self._runtime.clock.now()}
        await self._change(endpoint_id, put, scope)

    async def rotate(self, endpoint_id: str, secret: str | None, keep: timedelta, scope: Scope) -> str:
        """Sign with another secret, and for a while with those before it too; return the new one."""
        fresh = _checked_secret(secret)
        while (known := (await self.find(endpoint_id, scope))["webhook"]["secrets"])[0]["secret"] != fresh:
            now = self._runtime.clock.now()
            until = now + keep
            former = [{**each, "until": min(each.get("until", until), until)} for each in known]
            kept = [each for each in former if each["until"] > now][: _SECRETS_KEPT - 1]
            name, secrets = self.name(endpoint_id, scope), [{"secret": fresh}, *kept]
            # Where somebody else was first, theirs is a former one by now.
            await self._runtime.store.run(statements.rotate_secret(name, known[0]["secret"], secrets, now), scope)
        self._runtime.hint(HINT)
        return fresh

    async def enable(self, endpoint_id: str, scope: Scope) -> None:
        """Deliver again from where it stopped; one that is enabled is left as it is."""
        name, now = self.name(endpoint_id, scope), self._runtime.clock.now()
        enable = statements.enable_webhook(
            name, {**UNFAILED, "webhook.updated_at": now}, (*FAILING, "webhook.disabled_reason"), now
        )
        await self._runtime.store.run(enable, scope)
        self._runtime.hint(HINT)

    async def disable(self, endpoint_id: str, reason: str | None, scope: Scope) -> None:
        """Deliver no more; what is on its way arrives, and may be delivered again later."""
        name, now = self.name(endpoint_id, scope), self._runtime.clock.now()
        statement = statements.disable_webhook(name, check_note(reason, "reason"), now)
        await self._runtime.store.run(statement, scope)
        self._runtime.hint(HINT)

    @staticmethod
    def name(endpoint_id: str, scope: Scope) -> str:
        """Return the name of the subscriber that an endpoint is; raise `WebhookNotFound` where there can be none."""
        if not isinstance(endpoint_id, str) or ":" in endpoint_id or not endpoint_id.isascii():
            raise _unknown(endpoint_id)
        return named(endpoint_id, scope.tenant_id)

    async def _change(self, endpoint_id: str, put: Mapping[str, Any], scope: Scope) -> None:
        statement = statements.change_meta(self.name(endpoint_id, scope), put, (), "subscribers")
        if not await self._runtime.store.run(statement, scope):
            raise _unknown(endpoint_id)
        self._runtime.hint(HINT)

    async def _new_record(
        self, endpoint_id: str, checked: Mapping[str, Any], enabled: bool, scope: Scope
    ) -> dict[str, Any]:
        now = self._runtime.clock.now()
        webhook = {name.removeprefix("webhook."): value for name, value in checked.items() if name[:8] == "webhook."}
        record = {
            "_id": named(endpoint_id, scope.tenant_id),
            "tenant_id": scope.tenant_id,
            "on": checked["on"],
            "workflow": checked["workflow"],
            "position": await self._runtime.outbox.log.tail(),
            "held": [],
            "saves": 0,
            "created_at": now,
            "webhook": {"id": endpoint_id, **webhook, "born": new_token(), "updated_at": now, "failures": 0},
        }
        return record if enabled else record | {"disabled_at": now}

    def _checked(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be stored, by path, of what is wanted."""
        put: dict[str, Any] = {}
        if "url" in wanted:
            target_of(wanted["url"], networks_of(self._runtime.settings.webhook_networks))
            put["webhook.url"] = wanted["url"]
        if "on" in wanted:
            put["on"] = list(check_globs(wanted["on"]))
        if "workflow" in wanted:
            workflow = wanted["workflow"]
            put["workflow"] = None if workflow is None else check_name(workflow, "workflow")
        if "headers" in wanted:
            put["webhook.headers"] = check_headers(wanted["headers"])
        if "secret" in wanted:
            put["webhook.secrets"] = [{"secret": _checked_secret(wanted["secret"])}]
        return put


def _checked_secret(secret: str | None) -> str:
    """Return a secret as it is stored: as text."""
    if secret is None:
        return new_secret()
    key_of(secret if isinstance(secret, str) else None)
    return secret


def _unknown(endpoint_id: object) -> WebhookNotFound:
    return WebhookNotFound(f"no webhook endpoint {endpoint_id!r:.100}", field="id")
