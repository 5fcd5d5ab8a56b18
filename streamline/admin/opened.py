"""What every verb begins with: an open app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from streamline.domain.run import Run, read_run
from streamline.engine.registry import Registry
from streamline.engine.session import Session
from streamline.engine.starting.starter import Started
from streamline.handle import RunHandle, Verbs


class Opened:
    """Lets a verb reach the open app's parts."""

    _registry: Registry
    _session: Session | None

    @property
    def _open_session(self) -> Session:
        """Return what exists while the app is open; raise `AppClosed` or `WrongLoop`."""
        return Session.checked(self._session)

    def _handle_of(self, started: Started) -> RunHandle[Any]:
        return RunHandle(cast(Verbs, self), started.run_id, created=started.created)

    def _run_of(self, document: Mapping[str, Any]) -> Run:
        return read_run(document, self._registry.serving(document.get("workflow", ""), document.get("version", "")))
