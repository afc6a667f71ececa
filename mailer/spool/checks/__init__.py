"""Check whether a filesystem is suitable for a spool, and whether a spool is consistent; repair nothing."""
