"""Webhook endpoints: made, asked, changed, enabled and disabled, put back, removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from streamline.domain.dead_letter import DeadLetter
from streamline.domain.durations import Duration, parse_duration
from streamline.engine.log.subscribers import Subscribers
from streamline.engine.outgoing.endpoint_book import EndpointBook
from streamline.engine.session import Session
from streamline.errors import InvalidPolicy, SubscriberNotFound
from streamline.features.endpoints import CreatedWebhook, WebhookEndpoint, read_endpoint, with_secret
from streamline.store import Scope
from streamline.workflow import Workflow


class _Unchanged:
    """What is not named in an update."""


UNCHANGED: Final = _Unchanged()
WorkflowName = Workflow[Any, Any, Any] | str


class Webhooks:
    """``app.webhooks``: endpoints outside that are told of events.

    Every verb on an endpoint raises `WebhookNotFound` where there is none of that id.
    """

    def __init__(self, session: Callable[[], Session], scope: Scope) -> None:
        self._session = session
        self._scope = scope

    async def create(
        self,
        id: str,
        url: str,
        *,
        on: Sequence[str] | str = ("run.*",),
        workflow: WorkflowName | None = None,
        headers: Mapping[str, str] | None = None,
        secret: str | None = None,
        enabled: bool = True,
    ) -> CreatedWebhook:
        """Make an endpoint that is told of events from now on; return it with its secret, which is shown this once.

        Args:
            id: Its name: letters, digits, ``_`` and ``-``.
            url: Where webhooks are posted to: https, at a public address. See ``Settings.webhook_networks``.
            on: Globs over event types, such as ``"run.*"``; 1 to 100.
            workflow: Only events of runs of this workflow.
            headers: Sent with each webhook; at most 20.
            secret: What webhooks are signed with: ``whsec_`` and the base64 of 24 to 64 bytes; default a new one.
            enabled: Whether to begin at once; otherwise what happens until it is enabled is sent then.

        Raises:
            UrlNotAllowed: The URL is not of the allowed form, or leads to an address that is not allowed.
            InvalidName, InvalidKey, InvalidInput: Another argument is not of the allowed form; names the field.
            WebhookExists: There is an endpoint of this id.
            ExtraMissing: httpx is not installed here.
        """
        if not isinstance(enabled, bool):
            raise InvalidPolicy("enabled: True or False", field="enabled")
        wanted = {"url": url, "on": on, "workflow": _name_of(workflow), "headers": headers, "secret": secret}
        record = await self._book.create(id, wanted, enabled, self._scope.single())
        return with_secret(read_endpoint(record), record["webhook"]["secrets"][0]["secret"])

    async def list(self) -> tuple[WebhookEndpoint, ...]:
        """Return all endpoints, by id."""
        return tuple(read_endpoint(record) for record in await self._book.all(self._scope))

    async def get(self, id: str) -> WebhookEndpoint:
        """Return an endpoint as it is now."""
        return read_endpoint(await self._book.find(id, self._scope.single()))

    async def update(
        self,
        id: str,
        *,
        url: str | _Unchanged = UNCHANGED,
        on: Sequence[str] | str | _Unchanged = UNCHANGED,
        workflow: WorkflowName | _Unchanged | None = UNCHANGED,
        headers: Mapping[str, str] | _Unchanged | None = UNCHANGED,
    ) -> WebhookEndpoint:
        """Change what is named, for what is sent from now on; arguments and errors as for `create`."""
        named = {"url": url, "on": on, "workflow": _name_of(workflow), "headers": headers}
        wanted = {name: value for name, value in named.items() if not isinstance(value, _Unchanged)}
        await self._book.update(id, wanted, self._scope.single())
        return await self.get(id)

    async def enable(self, id: str) -> WebhookEndpoint:
        """Go on where the endpoint stopped, and try at once what it has failed on; its failures are forgotten."""
        await self._book.enable(id, self._scope.single())
        return await self.get(id)

    async def disable(self, id: str, reason: str | None = None) -> WebhookEndpoint:
        """Send nothing more; the endpoint keeps its place in the log, as far as the log goes back."""
        await self._book.disable(id, reason, self._scope.single())
        return await self.get(id)

    async def delete(self, id: str) -> None:
        """Remove an endpoint, with its place in the log and its dead letters."""
        name = await self._known(id)
        with suppress(SubscriberNotFound):  # removed meanwhile, or by a write of ours whose answer was lost
            await self._subscribers.remove(name)

    async def rotate_secret(self, id: str, *, secret: str | None = None, keep: Duration = "1d") -> str:
        """Sign with another secret; return it, which is the only time that it is shown.

        Args:
            id: The endpoint.
            secret: As for `create`.
            keep: For how long webhooks are signed with the former secret too, so that the receiver may change over.
        """
        return await self._book.rotate(id, secret, parse_duration(keep, "keep"), self._scope.single())

    async def replay(self, id: str, after: int | datetime | None = None) -> None:
        """Send again, from a place in the log on; receivers know what they had by ``webhook-id``.

        Args:
            id: The endpoint.
            after: A position; or an aware instant, for all that was logged then or later; None for all that is kept.
        """
        await self._subscribers.replay(await self._known(id), after)

    async def dead_letters(self, id: str, *, limit: int = 100) -> tuple[DeadLetter, ...]:
        """Return events that could not be delivered, the oldest first; 1 to 1,000 of them."""
        return await self._subscribers.dead_letters(await self._known(id), limit)

    async def retry(self, id: str, letters: Sequence[DeadLetter | int] | None = None) -> int:
        """Let dead letters, or all of them, be delivered again; return how many."""
        return await self._subscribers.retry(await self._known(id), letters)

    async def discard(self, id: str, letters: Sequence[DeadLetter | int] | None = None) -> int:
        """Give dead letters up, or all of them; return how many."""
        return await self._subscribers.discard(await self._known(id), letters)

    async def _known(self, id: str) -> str:
        """Return the name of the subscriber that an endpoint is."""
        return str((await self._book.find(id, self._scope.single()))["_id"])

    @property
    def _book(self) -> EndpointBook:
        return EndpointBook(self._session().runtime)

    @property
    def _subscribers(self) -> Subscribers:
        return Subscribers(self._session().runtime, self._scope)


def _name_of(workflow: Any) -> Any:
    return workflow.name if isinstance(workflow, Workflow) else workflow
