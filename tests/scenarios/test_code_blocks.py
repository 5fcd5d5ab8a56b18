"""The Python in README.md and in docs runs: every block that is not marked, page by page, on a real mongod.

The blocks of a page share one namespace, in order, in a fresh interpreter; ``await`` is allowed at the top level. A
block is left out where ``no-run`` stands in the line that opens it, or in a comment right above: ``<!-- no-run -->``.
Blocks run with MONGODB_URI set and in an empty directory. As a script, this file runs one page: it takes the path.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<info>.*)")
PYTHON = re.compile(r"\{?\s*\.?(python|py)\b")
SKIP = "no-run"


@dataclass(frozen=True)
class Block:
    """A fenced block of Python; `line` is that of its first line of code, from 1."""

    line: int
    code: str
    skip: bool


def blocks_of(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        opening = FENCE.fullmatch(lines[i])
        if opening is None:
            i += 1
            continue
        end = next((n for n in range(i + 1, len(lines)) if is_end(lines[n], opening["fence"])), len(lines))
        info = opening["info"].strip()
        if PYTHON.match(info):
            above = next((line for line in reversed(lines[:i]) if line.strip()), "")
            skip = SKIP in info or (above.strip().startswith("<!--") and SKIP in above)
            yield Block(i + 2, textwrap.dedent("\n".join(lines[i + 1 : end])), skip)
        i = end + 1


def is_end(line: str, fence: str) -> bool:
    return len(line.strip()) >= len(fence) and set(line.strip()) == {fence[0]}


def run_page(path: Path) -> None:
    module = ModuleType("__main__")
    sys.modules["__main__"] = module  # where pickling and annotations look names up
    with asyncio.Runner() as runner:
        for block in blocks_of(path.read_text(encoding="utf-8")):
            if not block.skip:
                run_block(block, path, vars(module), runner)


def run_block(block: Block, path: Path, names: dict[str, Any], runner: asyncio.Runner) -> None:
    source = "\n" * (block.line - 1) + block.code  # so that a traceback names the line of the page
    code = compile(source, str(path), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        runner.run(eval(code, names))
    else:
        exec(code, names)


def runnable(path: Path) -> bool:
    return path.is_file() and any(not block.skip for block in blocks_of(path.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, mongo_uri: str, database_name: str, client: Any, tmp_path: Path) -> None:
    uri = urlunsplit(urlsplit(mongo_uri)._replace(path=f"/{database_name}"))
    done = subprocess.run(
        [sys.executable, "-W", "error:coroutine:RuntimeWarning", __file__, str(page)],
        env=os.environ | {"MONGODB_URI": uri},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr  # what was never retrieved, or happened in another task


def test_the_readme_has_code_that_runs() -> None:
    assert runnable(ROOT / "README.md")


PAGE = """
```python
import asyncio
values = [1]
```

=== "A tab"

    ```python title="indented"
    values.append(await asyncio.sleep(0, 2))

    asyncio
    ```

```python no-run
nonsense(
```

<!-- no-run: a sketch -->

```{.python}
nonsense(
```

````markdown
```python
nonsense(
```
````

```sh
nonsense(
```

~~~py
async def three() -> int:
    return 3

values.append(asyncio.run(three()))
assert values == [1, 2, 3]
print(__name__, values)
~~~
"""


def run_script(page: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, __file__, str(page)], capture_output=True, text=True, check=False)


def test_blocks_share_names_in_order_and_may_await(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    done = run_script(page)
    assert (done.returncode, done.stdout) == (0, "__main__ [1, 2, 3]\n"), done.stderr


def test_a_traceback_names_the_line_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\n\n1 / 0\n```\n", encoding="utf-8")
    done = run_script(page)
    assert done.returncode == 1
    assert f'"{page}", line 5' in done.stderr


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
