"""Encode a message for DATA, block by block: dot-stuffing and line ends (RFC 5321 4.5.2, 2.3.8)."""

import re

from mailer.mail.lines import has_bare_line_end

_DOT = ord(".")
"""As a number: for bytes in bytes, CPython raises and clears a TypeError."""
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class DotStuffer:
    """Encodes one message for DATA.

    The output never has a bare CR or a bare LF, whatever the input. The receiver admits none, but a spool
    file can be written by hand, and a bare line end lets two servers see two different messages (SMTP
    smuggling). Well-formed input passes unchanged except for the doubled dots.
    """

    __slots__ = ("_at_line_start", "_held_cr")

    def __init__(self) -> None:
        self._at_line_start = True
        self._held_cr = False

    def encode(self, block: bytes) -> bytes:
        """Encode the next block; a trailing CR is held back until the next byte is known."""
        if self._held_cr:
            block = b"\r" + block
        self._held_cr = block.endswith(b"\r")
        if self._held_cr:
            block = block[:-1]
        if not block:
            return block
        if has_bare_line_end(block):
            block = _BARE.sub(b"\r\n", block)
        # Searching for one octet is ten times as fast as for two, and base64 has no dots.
        stuffed = block.replace(b"\n.", b"\n..") if _DOT in block else block
        if self._at_line_start and block.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = block.endswith(b"\n")
        return stuffed

    def end(self) -> bytes:
        """Return the rest, final dot included; an unterminated last line is terminated (RFC 5321 4.1.1.4)."""
        last = b"" if self._at_line_start and not self._held_cr else b"\r\n"
        return last + b".\r\n"
