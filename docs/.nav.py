"""Fill the navigation of mkdocs.yml: pages that exist, in its order; a folder stands for the pages in it."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    docs = Path(config.docs_dir)
    entries = ((title, path) for entry in config.nav for title, path in entry.items())
    config.nav = [{title: page} for title, path in entries if (page := _page(docs, path))]
    return config


def _page(docs: Path, path: str) -> str | list[str] | None:
    if path.endswith("/"):
        return sorted(page.relative_to(docs).as_posix() for page in (docs / path).rglob("*.md"))
    return path if (docs / path).exists() else None
