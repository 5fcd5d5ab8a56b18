"""News inside one process: what has just been stored, and who wants to hear of it."""

from streamline.bus.news import Bus

__all__ = ["Bus"]
