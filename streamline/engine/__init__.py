"""Driving runs: starting, claiming, executing, recovering them, and what handlers can ask for."""
