"""Select the header fields that a DKIM signature covers (RFC 6376 5.4), without reading the body."""

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mailer.send.dkim.canonical import header_field

OVERSIGNED = (
    "From",
    "Subject",
    "To",
    "Cc",
    "Reply-To",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-ID",
    "Content-Description",
    "Content-Disposition",
    "List-Unsubscribe-Post",
)
"""Always signed, and once more than they occur (RFC 6376 8.15), so that an added field breaks the signature.

Mail programs show these fields, use them to interpret the content, or act on them with a click (RFC 8058 4).
"""
SIGNED_IF_PRESENT = ("Sender", "In-Reply-To", "References", "List-Id", "List-Unsubscribe")
"""Signed as often as they occur (RFC 6376 5.4.1, RFC 8058 4); if there is none, later hops may add one."""

MAX_HEADER = 4 * 2**20
"""The most bytes of header that are kept in memory; the receiver accepts no message with as many."""
BLOCK = 64 * 1024
"""Bytes read in one call."""
_FIELD_ENDS = re.compile(rb"\r\n(?![ \t])")


class HeaderTooLarge(ValueError):
    """The header is larger than `MAX_HEADER`."""


class Source(Protocol):
    """A message in its final form, with CRLF line ends."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class Field(NamedTuple):
    """One header field."""

    key: bytes
    """The name in lower case, for comparison."""
    name: bytes
    """Everything before the colon."""
    value: bytes
    """Everything after the colon, without the last line end."""


class _Name(NamedTuple):
    """One name of h=."""

    spelling: str
    key: bytes
    extra: int
    """How many more times it is listed than it occurs."""


class SignedNames:
    """The field names that signatures cover; selects the fields of a message that have them."""

    def __init__(self, configured: Sequence[str]) -> None:
        """Args: configured: further names to sign; their spelling takes precedence over ours."""
        spelled = {name.lower(): name for name in configured}
        oversigned = {name.lower() for name in OVERSIGNED}
        order = {name.lower(): name for name in (*OVERSIGNED, *SIGNED_IF_PRESENT, *configured)}
        self._names = tuple(
            _Name(spelled.get(key, name), key.encode(), int(key in oversigned)) for key, name in order.items()
        )

    def select(self, fields: Sequence[Field], *, relaxed: bool) -> tuple[list[str], bytes]:
        """Return the names for h=, and the canonical form of the fields that they refer to.

        RFC 6376 5.4.2: several fields with the same name are signed from the last to the first; a name that
        is listed once more than there are fields stands for an empty field.
        """
        present: dict[bytes, list[bytes]] = {name.key: [] for name in self._names}
        for key, name, value in fields:
            if (values := present.get(key)) is not None:
                values.append(header_field(name, value, relaxed=relaxed))
        names: list[str] = []
        signed: list[bytes] = []
        for spelling, key, extra in self._names:
            values = present[key]
            names += [spelling] * (len(values) + extra)
            signed += reversed(values)
        return names, b"".join(signed)


def read_header(source: Source) -> tuple[list[Field], int]:
    """Read a message's header.

    Lines that are not fields (real mail has them) are ignored.

    Returns:
        The fields from top to bottom, and the offset of the body.

    Raises:
        HeaderTooLarge: the header exceeds `MAX_HEADER`; the rest was not read.
        OSError: the source cannot be read.
    """
    data = bytearray(source.read(0, BLOCK))
    if data.startswith(b"\r\n"):
        return [], 2
    searched = 0
    while (end := data.find(b"\r\n\r\n", searched)) < 0:
        if len(data) > MAX_HEADER:
            raise HeaderTooLarge(f"the message's header is larger than {MAX_HEADER} bytes")
        searched = max(0, len(data) - 3)
        block = source.read(len(data), BLOCK)
        if not block:
            return _fields(bytes(data).removesuffix(b"\r\n")), source.size
        data += block
    return _fields(bytes(data[:end])), end + 4


def _fields(text: bytes) -> list[Field]:
    found: list[Field] = []
    for line in _FIELD_ENDS.split(text):
        name, colon, value = line.partition(b":")
        if colon:
            found.append(Field(name.rstrip(b" \t").lower(), name, value))
    return found
