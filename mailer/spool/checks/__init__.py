"""Is the filesystem fit for a spool, and is the spool as it should be? Nothing is repaired here."""
