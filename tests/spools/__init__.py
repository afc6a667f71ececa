"""What tests do to a spool, and an independent reader of it."""
