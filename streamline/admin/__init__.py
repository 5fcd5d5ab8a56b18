"""The verbs on runs that exist: asking for them, answering them, operating them."""
