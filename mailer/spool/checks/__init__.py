"""Checks of whether the filesystem is fit for a spool, and the spool consistent. Nothing is repaired here."""
