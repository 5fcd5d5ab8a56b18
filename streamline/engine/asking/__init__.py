"""Questions about many runs, and operations on them."""
