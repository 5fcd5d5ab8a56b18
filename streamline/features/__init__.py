"""What the engine's primitives and verbs rest on, one idea each: tokens of hooks, decisions, joins of children."""
