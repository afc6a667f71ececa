"""A claimed message as it leaves us: what we put on top of it, then the bytes that were accepted."""

from collections.abc import Callable

import msgspec

from mailer.mail.envelope import Envelope
from mailer.spool.run.claim import Claim


def _ignore(*_: object) -> None:
    return


class Outgoing(msgspec.Struct, frozen=True):
    """What a route sends; the SMTP client's `Message` and the signer's `Source`."""

    claim: Claim
    on_top: bytes = b""
    """Header fields of ours, each with its line end: signatures, and a header in place of what is skipped."""
    skip: int = 0
    """Octets of the accepted message, from its start, that `on_top` stands for."""
    shown: Envelope | None = None
    """The envelope for the next hop; None: the accepted one."""

    on_wait: Callable[[str, float, int], None] = _ignore
    """Called with the hop when the message is to wait for its turn there, how many seconds, and for how many
    turns a minute the hop has."""

    @property
    def envelope(self) -> Envelope:
        return self.shown or self.claim.entry.block.envelope

    @property
    def size(self) -> int:
        return len(self.on_top) + self.claim.entry.length - self.skip

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` octets from `offset`; fewer only at the end."""
        top = self.on_top[offset : offset + length]
        start = offset + len(top) - len(self.on_top) + self.skip
        return top + self.claim.locked.read_message(self.claim.entry, start, length - len(top))
