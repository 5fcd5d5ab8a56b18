"""Delivering events to one webhook endpoint, and keeping count of what fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from streamline.domain.durations import parse_duration
from streamline.domain.run import Event
from streamline.engine.outgoing.endpoint_book import FAILING, HINT, UNFAILED
from streamline.engine.outgoing.posting import Poster
from streamline.engine.runtime import Runtime
from streamline.errors import StreamlineError, WebhookFailed
from streamline.features.addresses import networks_of
from streamline.features.endpoints import body_of, secrets_in_force, webhook_id_of
from streamline.store import statements

logger = logging.getLogger("streamline.engine")

_GONE = "the receiver wants no more webhooks (410)"


class Courier:
    """Delivers to an endpoint as it is stored; disables it where it is gone, or has failed often and for long.

    Args:
        runtime: The app's parts.
        stored: The endpoint's document.
    """

    def __init__(self, runtime: Runtime, stored: Mapping[str, Any]) -> None:
        self._runtime = runtime
        self._stored = stored
        self._posters = [self._poster_of(stored)]
        self._has_failed = True  # perhaps, in another process

    async def deliver(self, event: Event) -> None:
        """Deliver one event.

        Raises:
            WebhookFailed: It was not taken.
            UrlNotAllowed: The endpoint's address is not allowed.
        """
        webhook = self._stored["webhook"]
        secrets = secrets_in_force(webhook["secrets"], self._runtime.clock.now())
        headers = [(name, value) for name, value in webhook["headers"]]
        try:
            await self._posters[-1].post(webhook_id_of(event.run_id, event.seq), body_of(event), headers, secrets)
        except StreamlineError as failure:
            await self._count(failure)
            raise self._bounded(failure) from failure
        if self._has_failed:
            forget = statements.change_meta(self._stored["_id"], UNFAILED, FAILING, "subscribers")
            await self._runtime.store.run(forget)
            self._has_failed = False

    def change(self, stored: Mapping[str, Any]) -> None:
        """Go by what is stored now; what is on its way to where the endpoint was arrives there."""
        if stored["webhook"]["url"] != self._stored["webhook"]["url"]:
            self._posters.append(self._poster_of(stored))
        self._stored = stored

    async def close(self) -> None:
        """Close the connections."""
        for poster in self._posters:
            await poster.close()

    def _poster_of(self, stored: Mapping[str, Any]) -> Poster:
        settings = self._runtime.settings
        networks = networks_of(settings.webhook_networks)
        return Poster(stored["webhook"]["url"], networks, settings.webhook_seconds, self._runtime.clock)

    async def _count(self, failure: StreamlineError) -> None:
        name, now, settings = self._stored["_id"], self._runtime.clock.now(), self._runtime.settings
        self._has_failed = True
        await self._runtime.store.run(statements.count_failure(name, failure.message, now))
        if isinstance(failure, WebhookFailed) and failure.gone:
            reason, disable = _GONE, statements.disable_webhook(name, _GONE, now)
        else:
            reason = f"at least {settings.webhook_failures} deliveries in a row have failed"
            since = now - settings.failing_time
            disable = statements.disable_webhook(name, reason, now, settings.webhook_failures, since)
        if await self._runtime.store.run(disable):
            logger.warning("webhook %s is disabled: %s", self._stored["webhook"]["id"], reason)
            self._runtime.hint(HINT)

    def _bounded(self, failure: StreamlineError) -> StreamlineError:
        """Return the failure as it counts: the receiver cannot put a delivery off for ever."""
        if not isinstance(failure, WebhookFailed) or failure.after is None:
            return failure
        longest = parse_duration(self._runtime.settings.webhook_retry.max_delay, "max_delay")
        return WebhookFailed(failure.message, after=min(failure.after, longest))
