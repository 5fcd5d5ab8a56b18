"""A private mongod for one app: no installation, no orphan, real majority writes."""

from __future__ import annotations

from streamline.embedded.locate import find_mongod
from streamline.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer", "find_mongod"]
