"""Parse an untrusted message for `verify`, in linear time and within limits.

dkimpy's own parser and body canonicalization take time quadratic in a run of blanks or of folded lines (120
KB of blanks took 46 s), and for a body of blanks fifty times its size in memory. dkimpy still applies the
rules of RFC 6376, to parts that are small or have been prepared here.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property

MAX_MESSAGE = 64 * 1024 * 1024
"""Octets; most servers accept 10 to 50 MB."""
_MAX_HEADER = 512 * 1024
"""Octets. Postfix: 100 KiB for each field; Exim: 1 MiB for the header."""
_MAX_FIELDS = 2000
_MAX_SIGNATURE = 8 * 1024
"""Octets of one DKIM-Signature field; one with a 4,096-bit key and 50 field names has 1.5 KiB."""

_EMPTY_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
_LINE_END = re.compile(rb"\r?\n")
_NAME = re.compile(rb"([!-9;-~]+):")
# dkimpy's patterns start again at each blank of a run, which takes quadratic time.
_LONG_RUN = re.compile(rb"\s{200}")
_LINES = b"\r\n" * 4096


class Unreadable(ValueError):
    """The file is not a message, or exceeds a limit; the text says which."""


@dataclass(frozen=True)
class Opened:
    """A message in dkimpy's representation: fields with values that end in CRLF, and a body with CRLF."""

    fields: list[tuple[bytes, bytes]]
    body: bytes = field(repr=False)

    @classmethod
    def of(cls, message: bytes) -> "Opened":
        """Parse a message; its lines end in CRLF, or in LF, as mail readers save it.

        Raises:
            Unreadable: it is not a message, or exceeds a limit.
        """
        if len(message) > MAX_MESSAGE:
            raise Unreadable(f"it has more than {MAX_MESSAGE} octets")
        end = _EMPTY_LINE.search(message)
        header = message[: end.start()] if end else message
        if len(header) > _MAX_HEADER:
            raise Unreadable(f"its header has more than {_MAX_HEADER} octets")
        body = message[end.end() :] if end else b""
        return cls(_fields(header), body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    @cached_property
    def simple(self) -> bytes:
        """The body without the empty lines at its end (RFC 6376 3.4.3)."""
        return _without_lines_at_the_end(self.body)

    @cached_property
    def relaxed(self) -> bytes:
        """The body with its blanks reduced, and without the empty lines at its end (RFC 6376 3.4.4)."""
        body = self.body.replace(b"\t", b" ")
        while b"  " in body:  # each round halves every run, so there are at most 26 rounds
            body = body.replace(b"  ", b" ")
        return _without_lines_at_the_end(body.replace(b" \r\n", b"\r\n"))


def fault_of_signature(value: bytes) -> str:
    """Return why a DKIM-Signature field must not be given to dkimpy; empty: it may."""
    if len(value) > _MAX_SIGNATURE:
        return f"a signature field of more than {_MAX_SIGNATURE} octets"
    return "a signature field with 200 blanks in a row" if _LONG_RUN.search(value) else ""


def _fields(header: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, list[bytes]]] = []
    for number, line in enumerate(_LINE_END.split(header)):
        if not line:
            continue  # after the last line end
        if line[:1] in {b" ", b"\t"} and found:
            found[-1][1].append(line + b"\r\n")
        elif name := _NAME.match(line):
            found.append((name[1], [line[name.end() :] + b"\r\n"]))
        elif not line.startswith(b"From "):
            raise Unreadable(f"line {number + 1} of its header is not a field")
        if len(found) > _MAX_FIELDS:
            raise Unreadable(f"its header has more than {_MAX_FIELDS} fields")
    return [(name, b"".join(lines)) for name, lines in found]


def _without_lines_at_the_end(body: bytes) -> bytes:
    end, step = len(body), len(_LINES)
    while step >= 2:
        while body.endswith(_LINES[:step], 0, end):
            end -= step
        step //= 2
    return body if end == len(body) else body[:end] + b"\r\n" * (1 if end else 0)
