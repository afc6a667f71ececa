"""Lines of a notification: ended, folded, and short enough for every server."""

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime

_LINE = 76
"""Characters; RFC 5322 2.1.1 wants 78 at most."""
_LAST = 253_402_300_799.0
"""The last second of the year 9999."""
_UNBROKEN = 200
"""Characters after which a word is broken: at most 800 octets, where RFC 5322 2.1.1 lets a line have 998."""


def part(kind: str, encoding: str, description: str) -> bytes:
    """Write the header of one part (RFC 2045), with the empty line."""
    fields = {
        "Content-Type": kind,
        "Content-Transfer-Encoding": encoding,
        "Content-Description": description,
    }
    return ended([*(f"{name}: {value}" for name, value in fields.items()), ""])


def ended(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode(errors="backslashreplace")


def wrapped(text: str, indent: str) -> list[str]:
    """Break a text at spaces where a line is full, and within a word that is too long for any line."""
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
    """Write a time as RFC 5322 3.3 does; one that a wrong clock made is brought into its four-digit years."""
    return format_datetime(datetime.fromtimestamp(min(max(seconds, 0.0), _LAST), UTC))
