"""Values, transitions and decisions: pure functions of what they are given, with time as an argument."""
