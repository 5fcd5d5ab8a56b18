"""Classes by name: what a stored document may refer to, where its module is loaded here."""

from __future__ import annotations

import sys
from typing import Any


def name_of_class(found: type[Any]) -> str:
    """Return the name under which `loaded` finds a class."""
    return f"{found.__module__}:{found.__qualname__}"


def loaded(name: str) -> Any:
    """Return what has this name, or None: nothing is imported because a document says so."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
