"""Schedules: series of runs, kept to by whoever serves their workflow."""
