"""What every verb begins with: an open app."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

from streamline.domain.run import Run, read_run
from streamline.engine.registry import Registry
from streamline.engine.session import Session
from streamline.engine.starting.starter import Started
from streamline.handle import RunHandle, Verbs
from streamline.store import Scope


class Opened(ABC):
    """Lets a verb reach the open app's parts."""

    _registry: Registry
    _session: Session | None

    @property
    @abstractmethod
    def _scope(self) -> Scope:
        """The runs that the verbs are about; raise `TenantRequired` where that has to be said and was not."""

    @property
    def _home(self) -> Scope:
        """Where new runs belong; raise `TenantRequired` where that is left open."""
        return self._scope.single()

    @property
    def _open_session(self) -> Session:
        """Return what exists while the app is open; raise `AppClosed` or `WrongLoop`."""
        return Session.checked(self._session)

    def _handle_of(self, started: Started) -> RunHandle[Any]:
        return self._handle_to(started.run_id, created=started.created)

    def _handle_to(self, run_id: str, *, created: bool = False) -> RunHandle[Any]:
        return RunHandle(cast(Verbs, self), run_id, created=created)

    def _run_of(self, document: Mapping[str, Any]) -> Run:
        return read_run(document, self._registry.serving(document.get("workflow", ""), document.get("version", "")))
