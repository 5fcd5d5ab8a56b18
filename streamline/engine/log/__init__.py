"""The event log behind the runs: relayed into, followed, and delivered to subscribers."""
