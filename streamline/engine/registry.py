"""Which workflow definitions this process serves."""

from __future__ import annotations

from streamline.domain.definition import Definition, route_of
from streamline.domain.versions import order_of
from streamline.errors import AlreadyRegistered, VersionMismatch, WorkflowNotFound


class Registry:
    """Definitions by name and version; the highest version of a name starts its new runs."""

    def __init__(self) -> None:
        self._by_route: dict[str, Definition] = {}
        self._current: dict[str, Definition] = {}

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes whose runs this process may claim."""
        return tuple(self._by_route)

    @property
    def has_transactions(self) -> bool:
        """Whether any step of what is served is transactional."""
        return any(definition.is_transactional for definition in self._by_route.values())

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """The definitions that start new runs."""
        return tuple(self._current.values())

    def register(self, definition: Definition) -> None:
        """Serve `definition`; raise `AlreadyRegistered` where another one has its name and version."""
        if self._by_route.get(definition.route, definition) is not definition:
            raise AlreadyRegistered(
                f"{definition.route}: another definition is registered under this name and version", field="workflows"
            )
        self._by_route[definition.route] = definition
        current = self._current.get(definition.name)
        if current is None or order_of(definition.version) >= order_of(current.version):
            self._current[definition.name] = definition

    @property
    def served(self) -> tuple[Definition, ...]:
        """The definitions that this process serves, of every version."""
        return tuple(self._by_route.values())

    def current(self, name: str) -> Definition:
        """Return the definition that starts new runs of this name; raise `WorkflowNotFound`."""
        if not isinstance(name, str) or name not in self._current:
            raise WorkflowNotFound(f"no workflow named {name!r:.100} is registered", field="workflow")
        return self._current[name]

    def latest(self, name: str) -> Definition | None:
        """Return the definition that starts new runs of this name, or None where there is none."""
        return self._current.get(name)

    def in_force(self, name: str, route: str) -> Definition | None:
        """Return the definition whose rules hold for a run now: the one that starts new runs, else the run's own."""
        return self._current.get(name) or self._by_route.get(route)

    @property
    def names(self) -> tuple[str, ...]:
        """The workflows of which this process serves a version."""
        return tuple(self._current)

    def serving(self, name: str, version: str) -> Definition | None:
        """Return the definition of this name and version, or None where this process does not serve it."""
        return self._by_route.get(route_of(name, version))

    def by_route(self, route: str) -> Definition:
        """Return the definition of a claimed run; raise `VersionMismatch` where it is not served here."""
        if route not in self._by_route:
            raise VersionMismatch(f"{route} is not registered in this process", field="version")
        return self._by_route[route]
