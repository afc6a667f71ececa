"""Canonicalize header and body (RFC 6376 3.4) for DKIM signatures.

dkimpy's code is not used for this: it needs the body in one piece, takes time quadratic in a run of blanks
(16,000 took 0.31 s), and strips form feeds that RFC 6376 3.4.2 keeps, so that other verifiers reject the
signature. Everything here takes linear time, and a body may come in pieces of any size.
"""

import re
from typing import Protocol

_BLANKS = re.compile(rb"[ \t]+")
_EMPTY_LINES = b"\r\n" * 8192


class Sink(Protocol):
    """Takes canonical bytes, as a hash does."""

    def update(self, data: bytes, /) -> None: ...


class BodyCanonicalizer:
    """Canonicalizes one body and passes it on; the memory it needs does not depend on the body's size."""

    def __init__(self, sink: Sink, *, relaxed: bool) -> None:
        """Args: sink: gets the canonical form; relaxed: RFC 6376 3.4.4, otherwise 3.4.3 (simple)."""
        self._sink = sink
        self._relaxed = relaxed
        self._carried = b""
        """The last bytes of the block before, which may be part of a line end."""
        self._empty_lines = 0
        """Line ends not yet passed on, since they are dropped if they are at the end of the body."""
        self._empty = True

    def update(self, block: bytes) -> None:
        """Take the next bytes of the body."""
        data = self._carried + block
        if self._relaxed:
            # Reduce runs first, so that at most one blank precedes a line end. A pattern for runs before line
            # ends would start again at each blank of a run, which takes quadratic time. Halving the runs
            # takes sixteen rounds for a block of blanks; a pattern takes three times as long on real HTML.
            data = data.replace(b"\t", b" ")
            while b"  " in data:
                data = data.replace(b"  ", b" ")
            data = data.replace(b" \r\n", b"\r\n")
        kept = len(data)
        if data.endswith(b"\r"):
            kept -= 1
        if self._relaxed and data.endswith(b" ", 0, kept):
            kept -= 1
        self._carried = data[kept:]
        self._pass_on(data[:kept])

    def finish(self) -> None:
        """End the body; an unterminated last line gets a line end, as it would in SMTP."""
        self._pass_on(b"" if self._carried == b" " else self._carried)
        self._carried = b""
        if not (self._relaxed and self._empty):
            self._sink.update(b"\r\n")

    def _pass_on(self, data: bytes) -> None:
        text = len(data) - 2 * _line_ends_at_the_end(data)
        if text > 0:
            while self._empty_lines > 0:
                lines = min(self._empty_lines, len(_EMPTY_LINES) // 2)
                self._sink.update(_EMPTY_LINES[: 2 * lines])
                self._empty_lines -= lines
            self._sink.update(data[:text])
            self._empty = False
        self._empty_lines += (len(data) - text) // 2


def _line_ends_at_the_end(data: bytes) -> int:
    """Return the number of CRLF at the end of the data, in time linear in that number."""
    if not data.endswith(b"\r\n"):
        return 0
    rest = data[len(data.rstrip(b"\r\n")) :]
    if rest == _EMPTY_LINES[: len(rest)]:
        return len(rest) // 2
    # There is a bare CR or LF among them, or there are very many: CR and LF alternate after the last pair of
    # equal bytes.
    start = max(rest.rfind(b"\r\r"), rest.rfind(b"\n\n")) + 1
    if rest.startswith(b"\n", start):
        start += 1
    return (len(rest) - start) // 2


def header_field(name: bytes, value: bytes, *, relaxed: bool) -> bytes:
    """Return a header field in its canonical form, with its line end.

    Args:
        name: everything before the colon.
        value: everything after the colon, without the last line end.
        relaxed: RFC 6376 3.4.2; otherwise 3.4.1 (simple), which changes nothing.
    """
    if not relaxed:
        return name + b":" + value + b"\r\n"
    unfolded = _BLANKS.sub(b" ", value.replace(b"\r\n", b""))
    return name.lower().rstrip(b" \t") + b":" + unfolded.strip(b" ") + b"\r\n"
