"""Several hosts that share a directory: each has its own spool there, and may take over a dead host's."""
