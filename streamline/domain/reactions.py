"""What a workflow does about events and about the ends of other workflows' runs: it is cancelled, or started."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from streamline.domain.names import check_key, check_name
from streamline.domain.payloads import ANY, Codec
from streamline.domain.statuses import TERMINAL
from streamline.domain.tenancy import check_tenant
from streamline.errors import InvalidKey, InvalidName, InvalidPolicy, SerializationError

Wanted = Mapping[str, Any]
Matching = str | Mapping[str, Any] | Callable[[Any], Mapping[str, Any] | None]
Owner = str | Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class CancelOn:
    """An event that cancels the runs of a workflow; what it must match is stored in each run when it is created.

    Args:
        event: The event's name.
        match: Which events are meant, of those of the run's tenant; default all. A path such as ``"user.id"``: those
            whose payload has there what the run's input has there. A mapping from paths in the payload to values, or
            to functions of the validated input. Or a function of the validated input that returns such a mapping.
            Where the input has no value (None), the event does not cancel the run.

    Raises:
        InvalidName: The event's name is not of the allowed form.
        InvalidPolicy: `match` is of another kind.
    """

    event: str
    match: Matching | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        _check_event(self.event)
        if callable(self.match):
            return
        if isinstance(self.match, str):
            _check_path(self.match)
        elif self.match is not None:
            _check_paths(self.match)

    def stored(self, stored_input: Any, codec: Codec) -> dict[str, Any] | None:
        """Return what a run with this input keeps of it, or None where it cannot concern the run.

        Raises:
            InvalidKey: A function of the input raised, or returned what is no such mapping.
        """
        if self.match is None:
            return {"name": self.event}
        wanted = self._wanted(stored_input, codec)
        if wanted is None or any(value is None for value in wanted.values()):
            return None
        try:
            return {"name": self.event, "match": ANY.encode(dict(wanted), "cancel_on").value}
        except SerializationError as error:
            raise InvalidKey(f"cancel_on: {error}", field="cancel_on") from error

    def _wanted(self, stored_input: Any, codec: Codec) -> Wanted | None:
        if isinstance(self.match, str):
            return {self.match: value_at(stored_input, self.match)}
        try:
            if callable(self.match):
                wanted = self.match(codec.decode(stored_input))
                if wanted is not None:
                    _check_paths(wanted)
                return wanted
            given, functions = dict(self.match or {}), list[str]()
            functions = [path for path, value in given.items() if callable(value)]
            decoded = codec.decode(stored_input) if functions else None
            return given | {path: given[path](decoded) for path in functions}
        except Exception as error:
            raise InvalidKey(f"cancel_on: its function raised {type(error).__name__}", field="cancel_on") from error


@dataclass(frozen=True, slots=True)
class OnEvent:
    """An event that starts a run of a workflow, once, whichever process it is sent from.

    Args:
        event: The event's name.
        match: Paths in the payload and the values that they must have; default every event of the name.
        input: Function of the payload that returns the run's input; default the payload itself.
        tenant: Whose run an event of no tenant starts: a tenant, or a function of the payload that returns one, and
            the same one each time. Within a tenant an event starts runs of that tenant only. Default the event's own.

    Raises:
        InvalidName: The event's name is not of the allowed form.
        InvalidPolicy: `match`, `input` or `tenant` is of another kind.
        InvalidTenant: `tenant` cannot be the name of one.
    """

    event: str
    match: Wanted | None = None
    input: Callable[[Any], Any] | None = None
    tenant: Owner | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        _check_event(self.event)
        if self.match is not None:
            _check_paths(self.match)
        _check_function(self.input)
        _check_owner(self.tenant)

    def announced(self) -> dict[str, Any]:
        """Return what every process has to know of it."""
        match = {} if self.match is None else {"match": ANY.encode(dict(self.match), "triggers").value}
        return {"name": self.event, **match, **({} if self.tenant is None else {"names_tenant": True})}


@dataclass(frozen=True, slots=True)
class OnCompletion:
    """The end of a run of another workflow that starts a run of this one, once per end.

    Args:
        workflow: The other workflow, or its name.
        status: Which ends are meant: terminal statuses; default ``{"done"}``.
        input: Function of the ended `Run` that returns the run's input; default the ended run's output.
        tenant: Whose run the end of a run of no tenant starts: a tenant, or a function of the ended `Run` that returns
            one, and the same one each time. The end of a tenant's run starts runs of that tenant only. Default the
            ended run's own.

    Raises:
        InvalidName: The workflow's name is not of the allowed form.
        InvalidPolicy: `status`, `input` or `tenant` is of another kind.
        InvalidTenant: `tenant` cannot be the name of one.
    """

    workflow: Any
    status: str | Collection[str] = frozenset({"done"})
    input: Callable[[Any], Any] | None = None
    tenant: Owner | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        check_name(self.name, "triggers.workflow")
        wanted = self.statuses
        if not wanted or not wanted <= TERMINAL:
            raise InvalidPolicy(f"triggers.status: of {', '.join(sorted(TERMINAL))}", field="triggers.status")
        _check_function(self.input)
        _check_owner(self.tenant)

    @property
    def name(self) -> str:
        """The other workflow's name."""
        return str(self.workflow if isinstance(self.workflow, str) else getattr(self.workflow, "name", ""))

    @property
    def statuses(self) -> frozenset[str]:
        """Which ends are meant."""
        if isinstance(self.status, str):
            return frozenset({self.status})
        is_collection = isinstance(self.status, Collection) and not isinstance(self.status, Mapping)
        return frozenset(map(str, self.status)) if is_collection else frozenset()

    def announced(self) -> dict[str, Any]:
        """Return what every process has to know of it."""
        return {"workflow": self.name, "statuses": sorted(self.statuses)}


Trigger = OnEvent | OnCompletion


def matches(match: Wanted | None, payload: Any) -> bool:
    """Return whether a payload has all the values that are asked for, by field path."""
    return all(value_at(payload, path) == wanted for path, wanted in (match or {}).items())


def value_at(payload: Any, path: str) -> Any:
    """Return what a payload has at a field path, or None."""
    for part in path.split("."):
        payload = payload.get(part) if isinstance(payload, Mapping) else None
    return payload


def checked_cancel_on(rules: object) -> tuple[CancelOn, ...]:
    """Return what cancels a workflow's runs; raise `InvalidPolicy` for anything else."""
    if not isinstance(rules, (list, tuple)) or not all(isinstance(rule, CancelOn) for rule in rules):
        raise InvalidPolicy("cancel_on: a sequence of CancelOn", field="cancel_on")
    return tuple(rules)


def checked_triggers(triggers: object) -> tuple[Trigger, ...]:
    """Return what starts a workflow's runs; raise `InvalidPolicy` for anything else."""
    if not isinstance(triggers, (list, tuple)) or not all(isinstance(each, Trigger) for each in triggers):
        raise InvalidPolicy("triggers: a sequence of OnEvent and OnCompletion", field="triggers")
    return tuple(triggers)


def _check_event(name: object) -> None:
    try:
        check_key(name, "event")
    except InvalidKey as error:
        raise InvalidName(error.message, field="event") from error


def _check_paths(match: object) -> None:
    if not isinstance(match, Mapping):
        raise InvalidPolicy("match: paths in the payload and their values", field="match")
    for path in match:
        _check_path(path)
    try:
        ANY.encode({path: value for path, value in match.items() if not callable(value)}, "match")
    except SerializationError as error:
        raise InvalidPolicy(f"match: {error}", field="match") from error


def _check_path(path: object) -> None:
    try:
        check_key(path, "match")
    except InvalidKey as error:
        raise InvalidPolicy(error.message, field="match") from error


def _check_function(function: object) -> None:
    if function is not None and not callable(function):
        raise InvalidPolicy("input: a function", field="input")


def _check_owner(tenant: object) -> None:
    if isinstance(tenant, str):
        check_tenant(tenant)
    elif tenant is not None and not callable(tenant):
        raise InvalidPolicy("tenant: a tenant, or a function that returns one", field="tenant")
