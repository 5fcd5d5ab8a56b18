"""What can happen to a run: each function returns the `Change` or the new document, and touches nothing."""
