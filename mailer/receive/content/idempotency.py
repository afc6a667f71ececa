"""The field `Idempotency-Key`: mail that is submitted again, because nobody heard our reply, is queued once.

As with HTTP's field of that name (draft-ietf-httpapi-idempotency-key-header), the same user and the same key
within `idempotencyWindow` get the first answer again. A key under which other mail came is refused, as HTTP
APIs do with 422: it is a mistake of the application, and a silent 250 would lose a mail.

"The same mail" has the same addresses in its envelope and the same content, less what differs when an
application makes the same mail a second time: Date, Message-ID, and the boundaries between MIME parts.
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
_BOUNDARY = re.compile(rb'\bboundary="?([^";\s]+)[^;\n]*', re.IGNORECASE)
_CARRIED = 4096
"""Octets of the longest line that is looked at; what is longer declares no boundary, and is none."""


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
    """The digest by which the same mail is known again, of bytes as they come, however they are cut."""

    def __init__(self, envelope: Envelope) -> None:
        recipients = sorted(recipient.address for recipient in envelope.recipients)
        self._digest = sha256(
            "\0".join([envelope.sender, *recipients, ""]).encode("utf-8", "surrogateescape")
        )
        self._line = b""
        """The begun line, as far as it may still be looked at."""
        self._long = False
        """It is longer than that."""
        self._boundaries: set[bytes] = set()
        """Those that a Content-Type field has declared."""
        self._in_header = True
        """Of the message, or of one of its parts."""
        self._in_content_type = False

    def header(self, head: bytes) -> None:
        """Take the header, without the empty line; before any `body`."""
        self.body(header.without(head, _MADE_ANEW))

    def body(self, data: bytes | bytearray) -> None:
        """Take what follows, the empty line first."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = self._line + line
            if self._long or len(whole) > _CARRIED:
                self._digest.update(whole + b"\n")
            else:
                self._digest.update(self._same(whole) + b"\n")
            self._line, self._long = b"", False
        self._line += rest
        if self._long or len(self._line) > _CARRIED:
            self._digest.update(self._line)
            self._line, self._long = b"", True

    def digest(self) -> str:
        """Return the digest of all that came."""
        self._digest.update(self._line if self._long else self._same(self._line))
        self._line = b""
        return self._digest.hexdigest()

    def _same(self, line: bytes) -> bytes:
        """Return a line without the boundary that was made anew, if it has one."""
        if line[:2] == b"--" and self._boundaries:
            named = line.rstrip()
            if named[2:] in self._boundaries:
                self._in_header = True
                return b"--"
            if named.endswith(b"--") and named[2:-2] in self._boundaries:
                return b"----"
        if self._in_header:
            return self._of_header(line)
        return line

    def _of_header(self, line: bytes) -> bytes:
        if not line.rstrip():
            self._in_header = self._in_content_type = False
        elif line[:1] not in {b" ", b"\t"}:
            self._in_content_type = line[:13].lower() == b"content-type:"
        if self._in_content_type and (found := _BOUNDARY.search(line)):
            self._boundaries.add(found[1])
            return _BOUNDARY.sub(b"boundary=", line)
        return line
