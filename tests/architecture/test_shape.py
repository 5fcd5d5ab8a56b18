"""The shape of the house: small files, small functions, one name per thing, a pure domain."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "streamline"
STATEMENTS = sorted((PACKAGE / "store" / "statements").glob("*_runs.py"))

FILE_LINES = 400
STATEMENTS_LINES = 700
BODY_LINES = 40
VAGUE = {"base", "common", "core", "helper", "helpers", "manager", "managers", "misc", "types", "util", "utils"}
LEFTOVER = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")

OPERATOR = re.compile(r"\$[A-Za-z]")
REFERENCE = {"$ref", "$id", "$db"}  # reserved field names of BSON, not operators

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*parts: str) -> list[Path]:
    """The Python files below a folder of the package: at least one, or the test that asks would hold nothing."""
    found = sorted(PACKAGE.joinpath(*parts).rglob("*.py"))
    assert found, f"nothing to look at in streamline/{'/'.join(parts)}"
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return function.body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def texts(node: ast.AST) -> Iterator[ast.Constant]:
    return (part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_files_are_short() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    long = {
        str(path.relative_to(ROOT)): size
        for path, size in sizes.items()
        if size > (STATEMENTS_LINES if path in STATEMENTS else FILE_LINES)
    }
    assert not long


def test_functions_are_short() -> None:
    sizes = {
        f"{where(path, function)} {function.name}": body_lines(function)
        for path in sources()
        for function in functions(path)
    }
    assert sizes
    assert not {name: size for name, size in sizes.items() if size > BODY_LINES}


def test_names_say_what_is_inside() -> None:
    names = {part.removesuffix(".py") for path in sources() for part in path.relative_to(PACKAGE).parts}
    assert not names & VAGUE


def test_no_two_files_share_a_name() -> None:
    count = Counter(path.name for path in sources() if path.name != "__init__.py")
    assert count
    assert not [name for name, times in count.items() if times > 1]


def test_nothing_is_left_over() -> None:
    left = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if LEFTOVER.search(line)
    ]
    assert not left


def test_public_names_are_sorted_and_exist() -> None:
    package = importlib.import_module("streamline")
    names = list(package.__all__)
    assert names
    assert names == sorted(set(names), key=str.casefold)
    assert not [name for name in names if not hasattr(package, name)]


def test_the_domain_knows_no_operators() -> None:
    found = [
        f"{where(path, text)} {text.value!r}"
        for path in sources("domain")
        for text in texts(tree(path))
        if OPERATOR.match(str(text.value)) and text.value not in REFERENCE
    ]
    assert not found


def test_the_domain_never_waits() -> None:
    waiting = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
    found = [
        where(path, node) for path in sources("domain") for node in ast.walk(tree(path)) if isinstance(node, waiting)
    ]
    assert not found


def test_statements_are_sorted_by_verb_and_never_wait() -> None:
    assert STATEMENTS
    for path in STATEMENTS:
        names = [node.name for node in tree(path).body if isinstance(node, Function) and node.name[0] != "_"]
        assert names
        assert names == sorted(names)
        assert not [where(path, node) for node in functions(path) if isinstance(node, ast.AsyncFunctionDef)]


def sets_a_status(node: ast.AST) -> bool:
    """Whether a node is `{"$set": {… "status": …}}`, `document["status"] = …` or `run.status = …`."""
    if isinstance(node, ast.Dict):
        return any(
            isinstance(key, ast.Constant)
            and key.value == "$set"
            and isinstance(value, ast.Dict)
            and names_a_status(value)
            for key, value in zip(node.keys, node.values, strict=True)
        )
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(
        (isinstance(target, ast.Subscript) and is_status(target.slice))
        or (isinstance(target, ast.Attribute) and target.attr == "status")
        for target in targets
    )


def names_a_status(fields: ast.Dict) -> bool:
    return any(key is not None and is_status(key) for key in fields.keys)


def is_status(key: ast.expr) -> bool:
    """Whether a key is `status` or a path that ends in it, written out or as an f-string."""
    last = key.values[-1] if isinstance(key, ast.JoinedStr) and key.values else key
    return isinstance(last, ast.Constant) and str(last.value).rpartition(".")[2] == "status"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('{"$set": {"status": "done"}}', True),
        ('{"$set": {f"steps.{k}.status": "done"}}', True),
        ('run["status"] = "done"', True),
        ("run.status = status", True),
        ('{"status": {"$in": ["done"]}}', False),
        ('{"$set": {"progress": 1}}', False),
        ('status = run["status"]', False),
    ],
)
def test_a_written_status_is_recognised(code: str, *, expected: bool) -> None:
    assert any(sets_a_status(node) for node in ast.walk(ast.parse(code))) is expected


def test_only_transitions_write_a_status() -> None:
    homes = [*sources("domain"), *STATEMENTS]
    elsewhere = [path for path in sources() if path not in homes]
    assert elsewhere
    assert not [where(path, node) for path in elsewhere for node in ast.walk(tree(path)) if sets_a_status(node)]


def test_only_telemetry_knows_opentelemetry() -> None:
    homes = sources("telemetry")
    found = {
        where(path, node)
        for path in sources()
        if path not in homes
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import | ast.ImportFrom) and "opentelemetry" in ast.unparse(node)
    }
    assert not found
    assert any("opentelemetry" in path.read_text(encoding="utf-8") for path in homes)


def test_every_tox_environment_is_described() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    environments = [name for name in tox.sections() if name.startswith("testenv")]
    assert len(environments) > 5
    assert not [name for name in environments if not tox[name].get("description", "").strip()]
