"""The tests: a package, so that they can share code under one name."""
