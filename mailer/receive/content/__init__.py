"""Readers, checks and edits for the content of an incoming message."""
