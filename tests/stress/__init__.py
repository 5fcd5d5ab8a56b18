"""Processes that are killed, frozen and cut off, and what must hold of the runs whatever happens to them."""
