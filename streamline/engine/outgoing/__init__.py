"""Outgoing webhooks: endpoints, and what is posted to them."""
