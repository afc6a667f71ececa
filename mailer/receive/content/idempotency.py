"""The field `Idempotency-Key`: deduplicates mail that is submitted again because our reply was lost.

As with the HTTP field of that name (draft-ietf-httpapi-idempotency-key-header), the same user with the same
key gets the first reply again within `idempotencyWindow`. Different mail under a used key is refused, as HTTP
APIs do with 422: it is a mistake of the application, and a silent 250 would lose a mail.

Mail is the same if it has the same addresses in its envelope and the same content, except for what changes
when an application generates a mail a second time: Date, Message-ID, DKIM-Signature, and MIME boundaries.
"""

import re
from hashlib import sha256

from mailer.mail import header
from mailer.mail.envelope import Envelope
from mailer.receive.content.fault import Fault

FIELD = b"idempotency-key"
_MAX_KEY = 255
"""Octets in a key (Stripe: 255)."""
_KEY = re.compile(rb'(?:[!#-~]+)|"([ !#-\[\]-~]+)"')
"""A bare key, or a string of RFC 8941 without its two escapes, which no key needs."""
_VARYING = (
    b"date",
    b"message-id",
    b"resent-date",
    b"resent-message-id",
    b"dkim-signature",
    b"received",
    FIELD,
)
_BOUNDARY = re.compile(rb'\bboundary="?([^";\s]+)[^;\n]*', re.IGNORECASE)
_MAX_EXAMINED = 4096
"""Octets of the longest line that is examined; a longer one neither declares nor is a boundary."""


def key_of(head: bytes) -> str | Fault:
    """Return the key in a header, empty if there is none, or the fault for which to refuse the message."""
    if not (values := header.values(head, FIELD)):
        return ""
    value = b" ".join(values[0].split())
    found = _KEY.fullmatch(value)
    if len(values) > 1 or not found or len(value) > _MAX_KEY:
        return Fault.BAD_KEY
    return (found[1] or value).decode("ascii")


class Content:
    """Computes the digest that recognises the same mail, from pieces that may be cut anywhere."""

    def __init__(self, envelope: Envelope) -> None:
        recipients = sorted(recipient.address for recipient in envelope.recipients)
        self._digest = sha256(
            "\0".join([envelope.sender, *recipients, ""]).encode("utf-8", "surrogateescape")
        )
        self._line = b""
        """The unfinished last line, unless it is longer than is examined."""
        self._long = False
        """Whether the unfinished line is longer than that."""
        self._boundaries: set[bytes] = set()
        """The boundaries that Content-Type fields have declared so far."""
        self._in_header = True
        """Whether the next line is in the header of the message or of a part."""
        self._in_content_type = False

    def header(self, head: bytes) -> None:
        """Digest the header, given without the empty line; call this before `body`."""
        self.body(header.without(head, _VARYING))

    def body(self, data: bytes | bytearray) -> None:
        """Digest the next piece of what follows the header, beginning with the empty line."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = self._line + line
            if self._long or len(whole) > _MAX_EXAMINED:
                self._digest.update(whole + b"\n")
            else:
                self._digest.update(self._same(whole) + b"\n")
            self._line, self._long = b"", False
        self._line += rest
        if self._long or len(self._line) > _MAX_EXAMINED:
            self._digest.update(self._line)
            self._line, self._long = b"", True

    def digest(self) -> str:
        """Return the digest of everything so far."""
        self._digest.update(self._line if self._long else self._same(self._line))
        self._line = b""
        return self._digest.hexdigest()

    def _same(self, line: bytes) -> bytes:
        """Return a line as it is digested, with any MIME boundary removed."""
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
