"""The spool: the only code that touches spool files. `spool/README.md` explains what it leaves on disk."""
