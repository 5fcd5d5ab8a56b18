"""The tree of errors: typed, coded, and all of them used."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from http import HTTPStatus
from pathlib import Path

import pytest

import streamline
from streamline import errors
from streamline.errors import ResultTimeout, RunCancelled, RunFailed, StepTimeout, StreamlineError, WaitTimeout

PACKAGE = Path(streamline.__file__).parent

CONTRACT = {  # API.md §5
    422: "DefinitionError InvalidName DuplicateStep InvalidPolicy AlreadyRegistered InvalidInput SerializationError "
    "InvalidQuery InvalidKey ScheduleError UrlNotAllowed",
    413: "PayloadTooLarge",
    404: "RunNotFound WorkflowNotFound StepNotFound HookNotFound ScheduleNotFound SubscriberNotFound",
    409: "IllegalTransition NotWaiting AlreadyFinished HookAlreadyUsed VersionMismatch IdempotencyConflict",
    410: "HookExpired",
    429: "ConcurrencyLimitReached",
    403: "TenantRequired ForeignTenant InvalidTenant",
    401: "SignatureInvalid",
    503: "StoreUnavailable",
    504: "ResultTimeout",
    None: "UnsafeDeployment CorruptRun ContextClosed WrongLoop RunFailed RunCancelled NonDeterministicStep "
    "NonRetriableError RetryAfter StepTimeout WaitTimeout ChildFailed HeartbeatLost",
}

# Raised by features that are not built yet. The list may only become shorter.
NOT_YET = {
    "ChildFailed",
    "ConcurrencyLimitReached",
    "ForeignTenant",
    "HookAlreadyUsed",
    "HookExpired",
    "HookNotFound",
    "InvalidTenant",
    "NotWaiting",
    "ScheduleError",
    "ScheduleNotFound",
    "TenantRequired",
    "WaitTimeout",
}
GROUPS = {"StreamlineError", "NotFound", "Conflict", "DefinitionError"}
BY_USERS = {"NonRetriableError", "RetryAfter"}

TREE = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, StreamlineError)}


@pytest.mark.parametrize("name", TREE)
def test_an_error_has_a_dotted_code_and_a_status(name: str) -> None:
    kind = TREE[name]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*(\.[a-z]+(_[a-z]+)*)*", kind.code)
    assert "." in kind.code or name in GROUPS
    assert isinstance(kind.http_status, int)
    assert HTTPStatus(kind.http_status) >= 400
    assert inspect.getdoc(kind)


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in TREE.values()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(("status", "names"), CONTRACT.items(), ids=str)
def test_every_error_of_the_contract_is_there(status: int | None, names: str) -> None:
    for name in names.split():
        assert name in TREE, name
        assert status is None or TREE[name].http_status == status, name


def test_timeouts_are_timeouts() -> None:
    for kind in (ResultTimeout, StepTimeout, WaitTimeout):
        assert issubclass(kind, TimeoutError)


def test_an_error_carries_its_message_and_field() -> None:
    error = errors.InvalidPolicy("retry: no", field="retry")
    assert str(error) == error.message == "retry: no"
    assert error.field == "retry"
    assert StreamlineError().field is None
    assert RunFailed("x", run_id="r", error={"code": "c"}).error == {"code": "c"}
    assert RunFailed().error == {}
    assert RunCancelled("x", run_id="r", reason="why").reason == "why"


@pytest.mark.parametrize("name", TREE)
def test_an_error_survives_pickling(name: str) -> None:
    kind = TREE[name]
    error = kind("5s") if name == "RetryAfter" else kind("what is wrong")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


def used() -> set[str]:
    """The names of errors that the package makes or maps to, outside the tree itself."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "errors":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                names |= {node.func.id} if isinstance(node.func, ast.Name) else set()
                names |= {keyword.value.id for keyword in node.keywords if isinstance(keyword.value, ast.Name)}
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name):
                names.add(node.exc.id)
    return names & TREE.keys()


def test_every_error_is_raised_somewhere() -> None:
    assert TREE.keys() - used() - GROUPS - BY_USERS <= NOT_YET
