"""Fill the navigation of mkdocs.yml: pages that exist, in its order; a folder stands for the pages in it."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    config.nav = _entries(Path(config.docs_dir), config.nav)
    return config


def _entries(docs: Path, nav: list[dict[str, Any]]) -> list[dict[str, Any]]:
    titled = ((title, where) for entry in nav for title, where in entry.items())
    return [{title: found} for title, where in titled if (found := _found(docs, where))]


def _found(docs: Path, where: str | list[dict[str, Any]]) -> str | list[Any] | None:
    if isinstance(where, list):
        return _entries(docs, where)
    if where.endswith("/"):
        return sorted(page.relative_to(docs).as_posix() for page in (docs / where).rglob("*.md"))
    return where if (docs / where).exists() else None
