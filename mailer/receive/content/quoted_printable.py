"""Quoted-printable (RFC 2045 6.7) as it comes: text in any pieces in, lines of at most 76 octets out.

Python's own encoder does the work. What it leaves: a line that ends in an encoded blank may be one octet too
long, and a line may begin with `--`, by itself or because it was broken there, and be read as a boundary.
"""

import re
from binascii import b2a_qp

_MAX_LINE = 76
_SOFT_BREAK = b"=\r\n"
_BLANK_BEYOND = re.compile(rb"^([^\r\n]{74})(=20|=09)(?=\r\n)", re.MULTILINE)
_DASHES = re.compile(rb"^--[^\r\n]*", re.MULTILINE)


class QuotedPrintable:
    """Encodes one text. A piece ends with a line end, or anywhere but between CR and LF."""

    def __init__(self) -> None:
        self._unfinished = False

    def encode(self, piece: bytes) -> bytes:
        """Encode the next piece of a text whose only CRs and LFs are line ends."""
        encoded = b2a_qp(piece, istext=True)
        if b"\n" not in piece:
            # It breaks lines as its input does, and LF is what it takes from one that has no line end.
            encoded = encoded.replace(b"=\n", _SOFT_BREAK)
        if b"=20\r\n" in encoded or b"=09\r\n" in encoded:
            encoded = _BLANK_BEYOND.sub(rb"\1=\r\n\2", encoded)
        if encoded.startswith(b"--") or b"\n--" in encoded:
            encoded = _DASHES.sub(_no_boundary, encoded)
        before = _SOFT_BREAK if self._unfinished else b""
        self._unfinished = not piece.endswith(b"\n")
        if self._unfinished and len(encoded) - encoded.rfind(b"\n") - 1 == _MAX_LINE:
            # A soft break may have to follow. An escape stays in one piece.
            last = 3 if encoded[-3:-2] == b"=" else 1
            encoded = encoded[:-last] + _SOFT_BREAK + encoded[-last:]
        return before + encoded


def _no_boundary(found: re.Match[bytes]) -> bytes:
    """Write a line that begins with `--` so that it does not, in lines that are not too long."""
    line = found[0]
    if len(line) <= _MAX_LINE - 2:
        return b"=2D" + line[1:]
    rest = line[2:]
    return b"=2D=2D" + _SOFT_BREAK + (b"=2D" + rest[1:] if rest.startswith(b"--") else rest)
