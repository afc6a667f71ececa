"""Clients of the receiver, and what they send."""
