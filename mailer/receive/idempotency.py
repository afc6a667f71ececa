"""The field `Idempotency-Key`: mail that is submitted again, because nobody heard our reply, is queued once.

As with HTTP's field of that name (draft-ietf-httpapi-idempotency-key-header), the same user and the same key
within `idempotencyWindow` get the first answer again. A key under which other mail came is refused, as HTTP
APIs do with 422: it is a mistake of the application, and a silent 250 would lose a mail.

"The same mail" has the same envelope and the same content, less what differs when an application makes the
same mail a second time: Date, Message-ID, and the boundaries between MIME parts.
"""

import re
from hashlib import sha256

from mailer.mail import header
from mailer.mail.envelope import Envelope
from mailer.mail.reply import Reply
from mailer.receive import replies

FIELD = b"idempotency-key"
_MOST = 255
"""Octets of a key; Stripe: 255."""
_KEY = re.compile(rb'(?:[!#-~]+)|"([ !#-\[\]-~]+)"')
"""As it is, or as RFC 8941 writes a string; without its two escapes, which no key needs."""
_MADE_ANEW = (b"date", b"message-id", b"resent-date", b"resent-message-id", b"received", FIELD)
_BOUNDARY = re.compile(rb"^--[^\n]*|\bboundary=[^\n]*", re.MULTILINE)
_CARRIED = 4096
"""Octets of a line whose end has not come; what is longer has no boundary in it."""


def key_of(head: bytes) -> str | Reply:
    """Return the key in a message's header, empty if there is none; or the reply that refuses the message."""
    if FIELD not in head.lower() or not (values := header.values(head, FIELD)):
        return ""
    value = b" ".join(values[0].split())
    found = _KEY.fullmatch(value)
    if len(values) > 1 or not found or len(value) > _MOST:
        return replies.BAD_KEY
    return (found[1] or value).decode("ascii")


class Content:
    """The digest by which the same mail is known again, of bytes as they come."""

    def __init__(self, envelope: Envelope) -> None:
        recipients = sorted(recipient.address for recipient in envelope.recipients)
        self._digest = sha256(
            "\0".join([envelope.sender, *recipients, ""]).encode("utf-8", "surrogateescape")
        )
        self._line = b""

    def header(self, head: bytes) -> None:
        """Take the header, without the empty line; before any `body`."""
        self.body(header.without(head, _MADE_ANEW))

    def body(self, data: bytes | bytearray) -> None:
        """Take what follows, the empty line first."""
        text = self._line + data
        end = text.rfind(b"\n") + 1
        if len(text) - end > _CARRIED:
            end = len(text)
        self._line = text[end:]
        self._digest.update(_BOUNDARY.sub(b"--", text[:end]))

    def digest(self) -> str:
        """Return the digest of all that came."""
        self._digest.update(_BOUNDARY.sub(b"--", self._line))
        self._line = b""
        return self._digest.hexdigest()
