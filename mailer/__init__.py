"""mailer: a submission relay for the applications of one host."""

__version__ = "0.1.0"
