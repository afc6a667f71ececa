"""Notifications to senders (RFC 3464): what is owed to whom, how it reads, and how it gets into the spool."""
