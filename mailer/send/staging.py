"""The last check of what may leave a host with `redirectAllTo`; the redirection itself is the receiver's.

Mail that was accepted before the key was set, or came with a spool copied from production, still names real
recipients. Its sender may be a real address too, to which the next server would report a failure.
"""

import msgspec

from mailer.config.model import Config
from mailer.mail.envelope import Envelope
from mailer.mail.patterns import AddressPatterns
from mailer.mail.reply import printable

_ADVICE = (
    "it was accepted before redirectAllTo was set; remove it, or unset redirectAllTo and release it"
    " (mailer spool rm, mailer spool release)"
)


class Staging(msgspec.Struct, frozen=True):
    """The addresses that mail may be sent to, and from."""

    addressees: AddressPatterns
    told: AddressPatterns
    """Addresses that only notifications may be sent to, in addition."""

    @classmethod
    def of(cls, config: Config) -> "Staging | None":
        """Return the configured check; None if `redirectAllTo` is off, and mail goes to its recipients."""
        if not config.redirect_all_to:
            return None
        told = (config.bounce_address,) if config.bounce_address else ()
        return cls(
            AddressPatterns.of((config.redirect_all_to, *config.allowed_recipients)), AddressPatterns.of(told)
        )

    def objection(self, envelope: Envelope) -> str:
        """Return why mail with this envelope may not leave; empty if it may."""
        for recipient in envelope.recipients:
            notified = not envelope.sender and self.told.match(recipient.address)
            if not notified and not self.addressees.match(recipient.address):
                return f"<{printable(recipient.address)}> must not get mail from this host: {_ADVICE}"
        if envelope.sender and not self.addressees.match(envelope.sender):
            return f"another server must not notify the sender <{printable(envelope.sender)}>: {_ADVICE}"
        return ""
