"""A claimed message as it leaves us: what we put on top of it, then the bytes that were accepted."""

import msgspec

from mailer.mail.envelope import Envelope
from mailer.spool.claim import Claim


class Outgoing(msgspec.Struct, frozen=True):
    """What a route sends; the SMTP client's `Message` and the signer's `Source`."""

    claim: Claim
    on_top: bytes = b""
    """Header fields of ours, each with its line end: signatures."""

    @property
    def envelope(self) -> Envelope:
        return self.claim.entry.envelope

    @property
    def size(self) -> int:
        return len(self.on_top) + self.claim.entry.length

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` octets from `offset`; fewer only at the end."""
        top = self.on_top[offset : offset + length]
        start = offset + len(top) - len(self.on_top)
        return top + self.claim.held.read_message(self.claim.entry, start, length - len(top))
