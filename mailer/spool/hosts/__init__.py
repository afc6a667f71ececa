"""Several hosts on one directory: each has a spool of its own in it, and one may take over a dead one's."""
