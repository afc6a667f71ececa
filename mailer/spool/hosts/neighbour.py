"""One of the hosts that share a directory, for programs that show the mail of all."""

import msgspec

from mailer.spool.directory import Spool


class Neighbour(msgspec.Struct, frozen=True):
    """A host, and its spool."""

    host: str
    """Empty: the spool is that of one host alone."""
    spool: Spool
