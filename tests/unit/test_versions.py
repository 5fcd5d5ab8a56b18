"""Versions are compared as people read them, and a definition is known by its steps."""

from __future__ import annotations

from typing import Any

import pytest

from streamline import Workflow
from streamline.domain.versions import order_of, signature_of
from streamline.errors import DefinitionError, InvalidName

IN_ORDER = ["0.9", "1.0.0-alpha", "1.0.0-beta", "1.0.0-rc1", "1.0.0", "1.0.1", "1.2", "1.2.0", "1.10", "2", "2.0", "10"]


def test_versions_stand_in_order() -> None:
    assert sorted(sorted(IN_ORDER), key=order_of) == IN_ORDER
    assert sorted(IN_ORDER, key=order_of) == IN_ORDER


@pytest.mark.parametrize(("older", "newer"), [("2", "10"), ("1.9.0", "1.10.0"), ("1.0.0-rc.1", "1.0.0"), ("1", "1.0")])
def test_numbers_are_compared_as_numbers_and_a_word_comes_before_its_release(older: str, newer: str) -> None:
    assert order_of(older) < order_of(newer)


def test_what_only_separates_does_not_count() -> None:
    assert order_of("1.2.3") == order_of("1-2_3")
    assert order_of("1.0+a") == order_of("1.0.a")


def of(*steps: tuple[str, str | None]) -> list[dict[str, Any]]:
    wf: Workflow[Any, Any, Any] = Workflow("flow")
    for name, group in steps:
        wf.step(name, group=group)(_nothing)
    return signature_of(wf.definition)


async def _nothing(ctx: Any) -> None: ...


def test_a_signature_is_the_steps_their_order_and_their_groups() -> None:
    plain = of(("a", None), ("b", None))
    assert plain == of(("a", None), ("b", None)) == [{"id": "a"}, {"id": "b"}]
    for other in (
        of(("b", None), ("a", None)),
        of(("a", None)),
        of(("a", "g"), ("b", "g")),
        of(("a", None), ("c", None)),
    ):
        assert other != plain


def test_a_migration_is_declared_once_and_from_another_version() -> None:
    wf: Workflow[Any, Any, Any] = Workflow("flow", version="2")
    wf.step("a")(_nothing)
    wf.migrate("1")(lambda run: None)
    for version in ("1", "2"):
        with pytest.raises(DefinitionError) as refused:
            wf.migrate(version)
        assert refused.value.field == "migrate"
    with pytest.raises(InvalidName):
        wf.migrate("no version")
    assert set(wf.definition.migrations) == {"1"}
    with pytest.raises(DefinitionError):
        wf.migrate("0.9")
