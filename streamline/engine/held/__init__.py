"""What an attempt holds: the run, its memo, its state, its branches."""
