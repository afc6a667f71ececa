"""Notifications to senders (RFC 3464): which are due, how they read, and how they get into the spool."""
