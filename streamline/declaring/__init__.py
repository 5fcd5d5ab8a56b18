"""What declaring a workflow rests on: rules, decorators, steps that need no handler."""
