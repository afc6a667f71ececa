"""A claimed message as it is sent: the header fields that we add on top, then the accepted bytes."""

from collections.abc import Callable

import msgspec

from mailer.mail.envelope import Envelope
from mailer.spool.run.claim import Claim

OnWait = Callable[[str, float, int], None]
"""Called with a hop, the seconds to wait for a turn there, and the hop's turns per minute."""


def _ignore(*_: object) -> None:
    return


class Outgoing(msgspec.Struct, frozen=True):
    """What a route sends; implements the SMTP client's `Message` and the signer's `Source`."""

    claim: Claim
    on_top: bytes = b""
    """Our header fields, each with its line end: signatures, and the header that replaces what is skipped."""
    skip: int = 0
    """Octets at the start of the accepted message that `on_top` replaces."""
    shown: Envelope | None = None
    """The envelope for the next hop; None for the accepted one."""

    on_wait: OnWait = _ignore
    """Called when the message must wait for its turn at a hop."""

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
