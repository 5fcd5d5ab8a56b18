"""The gates of workflows, as new runs come to them: slots, ledgers, drafts."""
