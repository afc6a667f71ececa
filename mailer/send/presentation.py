"""Presentations: how the sender and header of a mail are changed for a next hop that demands it.

Some providers take mail only if its sender, or its From as well, is the account's own address; some refuse
the null sender `<>`, from which notifications come. Only what goes over the wire is changed: the spool keeps
the mail as accepted, so which notifications are owed does not change. In particular, a notification is never
answered with another one, whatever sender it is given.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from mailer.config.hops import Provider
from mailer.config.receiving import RewriteFrom
from mailer.mail import header
from mailer.mail.author import new_author
from mailer.mail.envelope import Envelope, Recipient

_AUTOMATIC = b"auto-submitted"


class Presentation(msgspec.Struct, frozen=True):
    """The changes that a route demands; see the keys of `Provider` with the same names."""

    sender: str = ""
    rewrite_from: RewriteFrom = RewriteFrom.KEEP
    dkim: bool = True
    bounce_from: str = ""

    @classmethod
    def to(cls, provider: Provider) -> "Presentation":
        # If To and Cc are rewritten for each batch, a signature of ours would break. Such providers sign.
        dkim = provider.dkim and not (provider.api and provider.api.by_header)
        wanted = cls(provider.sender, provider.rewrite_from, dkim, provider.bounce_from)
        return AS_ACCEPTED if wanted == AS_ACCEPTED else wanted

    def envelope(self, accepted: Envelope) -> Envelope:
        """Return the envelope with the sender for MAIL; the recipients for RCPT come from `recipients`."""
        sender = (self.sender if accepted.sender else self.bounce_from) or accepted.sender
        return accepted if sender == accepted.sender else replace(accepted, sender=sender)

    def recipients(self, accepted: Envelope, recipients: Sequence[Recipient]) -> Sequence[Recipient]:
        """Return the recipients to give to the hop.

        A notification that is not from `<>` asks for no notification (RFC 3461 4.1: NOTIFY=NEVER).
        """
        if accepted.sender or not self.bounce_from:
            return recipients
        return [Recipient(recipient.address, notify="NEVER") for recipient in recipients]

    def edits(self, accepted: Envelope) -> bool:
        """Tell whether `header` may change anything."""
        return self.rewrite_from is not RewriteFrom.KEEP or (not accepted.sender and bool(self.bounce_from))

    def header(self, head: bytes, accepted: Envelope) -> bytes:
        """Return the header to send, each field with its line end.

        Args:
            head: the header as accepted.
            accepted: the envelope that came with it.
        """
        dropped, added = list[bytes](), b""
        if self.rewrite_from is not RewriteFrom.KEEP:
            answered = self.rewrite_from is RewriteFrom.REPLACE_AND_REPLY_TO
            dropped, added = new_author(head, self.sender, reply_to=answered)
        if not accepted.sender and self.bounce_from and not _is_automatic(head):
            # RFC 3834 2: automatic responders do not answer such mail, just as they do not answer `<>`.
            dropped.append(_AUTOMATIC)
            added += b"Auto-Submitted: auto-replied\r\n"
        kept = header.without(head, dropped) if dropped else head
        return kept + (b"" if kept.endswith(b"\r\n") or not kept else b"\r\n") + added


AS_ACCEPTED = Presentation()


def _is_automatic(head: bytes) -> bool:
    values = header.values(head, _AUTOMATIC)
    return bool(values) and all(value.strip().lower().startswith(b"auto-") for value in values)
