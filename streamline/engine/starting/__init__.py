"""How runs are started: ordered, let in, stored."""
