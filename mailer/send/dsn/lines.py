"""Format the lines of a DSN: line ends, folding, and lengths that every server accepts."""

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime

_LINE = 76
"""The most characters in a line; RFC 5322 2.1.1 recommends at most 78."""
_MAX_TIME = 253_402_300_799.0
"""The last second of the year 9999, in seconds since the epoch."""
_UNBROKEN = 200
"""Characters after which a word is broken: at most 800 octets; RFC 5322 2.1.1 allows 998 in a line."""


def part(kind: str, encoding: str, description: str) -> bytes:
    """Return the header of one MIME part (RFC 2045), including the empty line."""
    fields = {
        "Content-Type": kind,
        "Content-Transfer-Encoding": encoding,
        "Content-Description": description,
    }
    return ended([*(f"{name}: {value}" for name, value in fields.items()), ""])


def ended(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode(errors="backslashreplace")


def wrapped(text: str, indent: str) -> list[str]:
    """Break a text into lines, at spaces, or within a word that is too long for any line."""
    full, line = [], indent
    for word in text.split(" "):
        for start in range(0, max(1, len(word)), _UNBROKEN):
            piece = word[start : start + _UNBROKEN]
            if line.strip() and len(line) + len(piece) >= _LINE:
                full.append(line)
                line = indent + piece
            else:
                line += (" " if line.strip() else "") + piece
    return [*full, line]


def date_time(seconds: float) -> str:
    """Return a time as in RFC 5322 3.3; one from a wrong clock is clamped to four-digit years."""
    return format_datetime(datetime.fromtimestamp(min(max(seconds, 0.0), _MAX_TIME), UTC))
