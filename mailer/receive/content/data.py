r"""The readers of DATA (RFC 5321 4.5.2) and of BDAT's chunks (RFC 3030): bytes in, bytes out, no I/O.

Of DATA only `CRLF . CRLF` ends a message. A bare CR, a bare LF or a NUL does not end it, is not mended, and
gets the whole message refused after its end: what we pass on is read as one message by everyone, or is not
passed on (SMTP smuggling). A reader that is told of trouble goes on to the end without keeping anything,
because a client listens for a reply only there.

Speed: a clean chunk costs a handful of scans by the C library and no Python per line.
"""

from enum import Enum

from mailer.config.receiving import LongLines
from mailer.mail.lines import has_bare_line_end

MAX_LINE = 998
"""Octets without CRLF; RFC 5322 2.1.1."""

_END = b"\r\n.\r\n"


class Fault(Enum):
    """Why a message is refused once its end has come; the first one found counts."""

    BARE_LINE_END = "bare line end"
    NUL = "nul"
    TOO_BIG = "too big"
    LONG_LINE = "long line"


class LineRuler:
    """Holds lines, which may come cut anywhere, against the limit."""

    def __init__(self) -> None:
        self._column = 0

    def too_long(self, text: bytes) -> bool:
        """Tell whether the next piece of text has a line over the limit; after one there is no more to ask.

        It hops from line end to line end, each time over as many lines as fit where one may be.
        """
        start = -self._column
        while len(text) - start > MAX_LINE + 2:
            newline = text.rfind(b"\n", max(start, 0), start + MAX_LINE + 2)
            if newline < 0:
                return True
            start = newline + 1
        last = text.rfind(b"\n")
        self._column = len(text) - (start if last < 0 else last + 1)
        return False


class _Reader:
    """What both readers look for in a message, and count."""

    def __init__(self, *, max_size: int, long_lines: LongLines) -> None:
        """Start at the message's first byte.

        Args:
            max_size: octets of the message, unstuffed, that are still taken.
            long_lines: what becomes of a line over 998 octets.
        """
        self.size = 0
        """Octets of the message so far, unstuffed."""
        self.fault: Fault | None = None
        self.must_be_encoded = False
        """A line over 998 octets has passed, and the policy is to encode it."""
        self._max_size = max_size
        self._long_lines = long_lines
        self._lines = LineRuler()

    def _check(self, body: bytes) -> None:
        """Look for what must not be in a piece that neither begins nor ends inside a CRLF."""
        if b"\0" in body:
            self.fault = Fault.NUL
        if has_bare_line_end(body):
            self.fault = Fault.BARE_LINE_END

    def _measure(self, body: bytes) -> bytes:
        self.size += len(body)
        if self.fault is None and self.size > self._max_size:
            self.fault = Fault.TOO_BIG
        looking = self._long_lines is not LongLines.PASS and not self.must_be_encoded
        if self.fault is None and looking and self._lines.too_long(body):
            if self._long_lines is LongLines.REJECT:
                self.fault = Fault.LONG_LINE
            else:
                self.must_be_encoded = True
        return b"" if self.fault else body


class DataReader(_Reader):
    """Reads one message; feed it until `done`, then look at `fault`, and serve `rest` as commands."""

    def __init__(self, *, max_size: int, long_lines: LongLines) -> None:
        """Start just after the line that held DATA; the arguments are those of every reader."""
        super().__init__(max_size=max_size, long_lines=long_lines)
        self.done = False
        self.rest = b""
        """What the client sent after the end; empty until `done`."""
        # The CRLF of the command line makes a dot at the very start a dot at a line's start. It is no part of
        # the message: `_skip` says how much of the next output it still is.
        self._held = b"\r\n"
        self._skip = 2

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes from the client, at any split; return those of the message that are settled.

        Bytes that might belong to an end, at most four, are held back until the next call. After a fault
        nothing is returned.
        """
        data = self._held + data
        # Most chunks have no dot at a line's start, so neither an end nor anything to unstuff; base64 has no
        # dot at all, and one octet is found ten times as quickly as three.
        dot = data.find(b"\r\n.") if b"." in data else -1
        end = data.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            self.done = True
            self.rest = data[end + len(_END) :]
            body = data[: end + 2]
            self._held = b""
        else:
            keep = _possible_end(data)
            body = data[: len(data) - keep]
            self._held = data[len(data) - keep :]
        if self.fault is not None or not body:
            return b""
        self._check(body)
        if dot >= 0:
            body = body.replace(b"\r\n.", b"\r\n")
        body, self._skip = body[self._skip :], 0
        return self._measure(body)


class ChunkReader(_Reader):
    """Reads one message that comes in chunks, which may be cut anywhere."""

    def __init__(self, *, max_size: int, long_lines: LongLines) -> None:
        super().__init__(max_size=max_size, long_lines=long_lines)
        self._held = b""
        self._whole_lines = True

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take the next bytes of the message; return those that are settled, nothing after a fault.

        Args:
            data: as the client counted them.
            last: these are the message's last; a line that is then unfinished is finished, because the next
                hop may know DATA only.
        """
        data = self._held + data
        if last:
            self._held = b""
            data += b"" if self._finished(data) else b"\r\n"
        else:
            self._held = data[-1:] if data.endswith(b"\r") else b""
            data = data[: len(data) - len(self._held)]
        if self.fault is not None or not data:
            return b""
        self._whole_lines = data.endswith(b"\n")
        self._check(data)
        return self._measure(data)

    def _finished(self, data: bytes) -> bool:
        return data.endswith(b"\r\n") if data else self._whole_lines


def _possible_end(data: bytes) -> int:
    """Length of the longest tail of `data` that may turn out to begin an end."""
    for length in range(len(_END) - 1, 0, -1):
        if data.endswith(_END[:length]):
            return length
    return 0
