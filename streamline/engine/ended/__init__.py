"""What follows from the end of a run: others are told, and it is removed in time."""
