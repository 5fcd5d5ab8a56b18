"""The fields of `streamline.odm`, against what the transitions write; and that nobody pays for what is not used."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest

from streamline.domain.change import apply
from streamline.domain.transitions.discarding import discarded
from tests.property.walks import Walk


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_every_field_that_random_walks_come_to_is_known() -> None:
    pytest.importorskip("beanie")
    from streamline.odm import RunDocument, StoredLease, StoredStep

    of_run, of_step = {*RunDocument.model_fields} - {"id"} | {"_id"}, {*StoredStep.model_fields}
    of_undoing = {"status", "attempt", "error", "started_at", "ended_at", "failures", "memo", "waits", "due_at"}
    seen: set[str] = set()
    for seed in range(40):
        walk = Walk(random.Random(seed), f"run-{seed}")
        run: dict[str, Any] = walk.run
        for _ in range(40):
            seen |= run.keys()
            assert run.keys() <= of_run
            assert run.get("lease", {}).keys() <= StoredLease.model_fields.keys()
            for step in run["steps"]:
                assert step.keys() <= of_step
                assert StoredStep.model_validate(step).status == step["status"]
                assert (step.get("compensation") or {}).keys() <= of_undoing
            apply(run, walk.next_change(run))
        apply(run, discarded(run, walk.now, children=True))
        assert run.keys() <= of_run
    assert {"lease", "paused", "cancel", "jumps", "hooks", "owes_at", "recovered_before", "waiting_since"} <= seen


def test_beanie_is_imported_by_nobody_but_the_documents() -> None:
    found = run_python("import streamline, sys; print([name for name in sys.modules if 'beanie' in name])")
    assert found == "[]"


def test_without_beanie_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["beanie"] = None  # as if it were not installed
try:
    import streamline.odm
except Exception as error:
    print(type(error).__name__, error)
"""
    assert run_python(code) == 'ExtraMissing streamline.odm needs Beanie; install "streamline-mongo[beanie]"'
