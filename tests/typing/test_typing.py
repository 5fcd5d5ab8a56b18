"""What users write is checked by mypy --strict and pyright: right code is accepted, mistakes are errors.

Every file in `cases` is a program. A line that must be an error ends with `# expect-error: a / b`: each checker reports
errors on it, and their codes or messages contain one of the alternatives. On every other line neither reports anything.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
CASES = sorted(Path(__file__).resolve().with_name("cases").glob("*.py"))
MARK = re.compile(r"#\s*expect-error:\s*(?P<alternatives>.+?)\s*$")

Errors = dict[Path, dict[int, list[str]]]  # file → line → "code: message"


def run(*command: str) -> str:
    """The output of a checker, which ends with 0 without errors, with 1 with errors, and otherwise did not run."""
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def by_mypy(folder: Path) -> Errors:
    errors: Errors = defaultdict(lambda: defaultdict(list))
    config = folder / "mypy.ini"
    config.write_text("[mypy]\n", encoding="utf-8")
    options = ("--strict", "--output=json", f"--config-file={config}", f"--cache-dir={folder / 'cache'}")
    for line in run("mypy", *options, *map(str, CASES)).splitlines():
        found = json.loads(line)
        if found["severity"] == "error":
            errors[ROOT / found["file"]][found["line"]].append(f"{found['code']}: {found['message']}")
    return errors


def by_pyright(_folder: Path) -> Errors:
    errors: Errors = defaultdict(lambda: defaultdict(list))
    project = Path(__file__).resolve().with_name("pyrightconfig.json")
    report = json.loads(run("pyright", "--outputjson", f"--pythonpath={sys.executable}", f"--project={project}"))
    assert report["summary"]["filesAnalyzed"] >= len(CASES), report["summary"]
    for found in report["generalDiagnostics"]:
        if found["severity"] == "error":
            line = found["range"]["start"]["line"] + 1
            errors[Path(found["file"])][line].append(f"{found.get('rule', '')}: {found['message']}")
    return errors


@pytest.fixture(scope="module", params=[by_mypy, by_pyright], ids=["mypy", "pyright"])
def errors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Errors:
    return request.param(tmp_path_factory.mktemp("checker"))


def expected(case: Path) -> dict[int, list[str]]:
    lines = enumerate(case.read_text(encoding="utf-8").splitlines(), start=1)
    return {number: mark["alternatives"].split(" / ") for number, line in lines if (mark := MARK.search(line))}


def test_there_are_cases_and_mistakes() -> None:
    assert CASES
    assert any(expected(case) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_exactly_the_marked_lines_are_errors(errors: Errors, case: Path) -> None:
    found, marked = errors[case], expected(case)
    wrong = {
        line: {"expected": marked.get(line, "no error"), "found": found.get(line, "no error")}
        for line in sorted(found.keys() | marked.keys())
        if line not in found or not all(any(part in error for part in marked.get(line, ())) for error in found[line])
    }
    assert not wrong, json.dumps(wrong, indent=2)
