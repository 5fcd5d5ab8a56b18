"""Bringing to runs what comes from outside: answers, decisions, events."""
