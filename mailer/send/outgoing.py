"""A claimed message as it is sent: the header fields that we add on top, then the accepted bytes."""

from collections.abc import Callable

from mailer.mail.envelope import Envelope
from mailer.spool.run.claim import Claim

OnWait = Callable[[str, float, int], None]
"""Called with a hop, the seconds to wait for a turn there, and the hop's turns per minute."""


def _ignore(*_: object) -> None:
    return


class Outgoing:
    """What a route sends; implements the SMTP client's `Message` and the signer's `Source`."""

    __slots__ = ("claim", "envelope", "on_top", "on_wait", "size", "skip")

    def __init__(
        self,
        claim: Claim,
        on_top: bytes = b"",
        skip: int = 0,
        shown: Envelope | None = None,
        *,
        on_wait: OnWait = _ignore,
    ) -> None:
        """Describe what is sent.

        Args:
            claim: the message.
            on_top: our header fields, each with its line end: signatures, and the header that replaces what
                is skipped.
            skip: octets at the start of the accepted message that `on_top` replaces.
            shown: the envelope for the next hop; None for the accepted one.
            on_wait: called when the message must wait for its turn at a hop.
        """
        entry = claim.entry
        self.claim = claim
        self.on_top = on_top
        self.skip = skip
        self.on_wait = on_wait
        self.envelope = shown or entry.block.envelope
        self.size = len(on_top) + entry.length - skip

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` octets from `offset`; fewer only at the end."""
        top = self.on_top[offset : offset + length]
        start = offset + len(top) - len(self.on_top) + self.skip
        return top + self.claim.locked.read_message(self.claim.entry, start, length - len(top))
