"""The durable verbs of a context, by kind: each checks that it may be used, and hands over to its primitive."""
