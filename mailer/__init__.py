"""mailer: the relay that the applications of one host hand their mail to."""

__version__ = "0.1.0"
