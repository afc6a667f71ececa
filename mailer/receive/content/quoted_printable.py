"""A streaming encoder for quoted-printable (RFC 2045 6.7): text in pieces, to lines of at most 76 octets.

Python's own encoder does the work. This corrects two flaws in its output. A line that ends in an encoded
blank may be one octet too long. A line may begin with `--`, by itself or after a soft break, and then be
taken for a boundary.
"""

import re
from binascii import b2a_qp

_MAX_LINE = 76
_SOFT_BREAK = b"=\r\n"
_BLANK_BEYOND = re.compile(rb"^([^\r\n]{74})(=20|=09)(?=\r\n)", re.MULTILINE)
_DASHES = re.compile(rb"^--[^\r\n]*", re.MULTILINE)


class QuotedPrintable:
    """Encodes one text. Pieces may end anywhere except between CR and LF."""

    def __init__(self) -> None:
        self._unfinished = False

    def encode(self, piece: bytes) -> bytes:
        """Encode the next piece of a text whose only CRs and LFs are line ends."""
        encoded = b2a_qp(piece, istext=True)
        if b"\n" not in piece:
            # Python's encoder copies the style of line ends from its input, and uses LF if that has none.
            encoded = encoded.replace(b"=\n", _SOFT_BREAK)
        if b"=20\r\n" in encoded or b"=09\r\n" in encoded:
            encoded = _BLANK_BEYOND.sub(rb"\1=\r\n\2", encoded)
        if encoded.startswith(b"--") or b"\n--" in encoded:
            encoded = _DASHES.sub(_no_boundary, encoded)
        before = _SOFT_BREAK if self._unfinished else b""
        self._unfinished = not piece.endswith(b"\n")
        if self._unfinished and len(encoded) - encoded.rfind(b"\n") - 1 == _MAX_LINE:
            # The line is full, but the `=` of a soft break may have to follow. Do not split an escape.
            last = 3 if encoded[-3:-2] == b"=" else 1
            encoded = encoded[:-last] + _SOFT_BREAK + encoded[-last:]
        return before + encoded


def _no_boundary(found: re.Match[bytes]) -> bytes:
    """Encode a line that begins with `--` so that no resulting line does, nor is too long."""
    line = found[0]
    if len(line) <= _MAX_LINE - 2:
        return b"=2D" + line[1:]
    rest = line[2:]
    return b"=2D=2D" + _SOFT_BREAK + (b"=2D" + rest[1:] if rest.startswith(b"--") else rest)
