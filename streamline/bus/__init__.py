"""News inside one process: what has just been stored, and who wants to hear of it."""

from streamline.bus.news import STORED, Bus

__all__ = ["STORED", "Bus"]
