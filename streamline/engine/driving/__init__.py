"""Driving a run: attempts, handlers, and the writes that end them."""
