r"""The readers of DATA (RFC 5321 4.5.2) and of BDAT's chunks (RFC 3030): bytes in, bytes out, no I/O.

Only `CRLF . CRLF` ends a message in DATA. A bare CR, a bare LF or a NUL does not end it and is not repaired;
the whole message is refused after its end. So every server reads a message that we relay as one message,
which prevents SMTP smuggling. After a fault a reader continues to the end without returning anything, because
a client reads a reply only there.

Speed: a clean chunk costs a handful of scans by the C library and no Python per line.
"""

from mailer.config.receiving import LongLines
from mailer.mail.lines import has_bare_line_end
from mailer.receive.content.fault import Fault

MAX_LINE = 998
"""Octets in a line without CRLF (RFC 5322 2.1.1)."""

_END = b"\r\n.\r\n"
# As numbers: CPython searches for these at once, and for octets in `bytes` only after a TypeError.
_DOT, _NUL = 0x2E, 0x00


class LineRuler:
    """Finds lines over the limit in a text that comes in pieces, cut anywhere."""

    def __init__(self) -> None:
        self._column = 0

    def too_long(self, text: bytes) -> bool:
        """Return whether the next piece of text has a line over the limit; do not call it again after True.

        Each step searches backwards for the last line end within the longest allowed line, so that it skips
        several short lines together.
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
    """The checks and counts that both readers share."""

    def __init__(self, *, max_size: int, long_lines: LongLines) -> None:
        """Start at the message's first byte.

        Args:
            max_size: the largest message to accept, in octets after unstuffing.
            long_lines: what to do with a line over 998 octets.
        """
        self.size = 0
        """Octets of the message so far, unstuffed."""
        self.fault: Fault | None = None
        """The reason to refuse the message after its end; the first piece with a fault decides."""
        self.must_be_encoded = False
        """Whether the message has a line over 998 octets, and the policy is to encode it."""
        self._max_size = max_size
        self._long_lines = long_lines
        self._lines = None if long_lines is LongLines.PASS else LineRuler()

    def _check(self, body: bytes) -> None:
        """Check a piece, which neither begins nor ends inside a CRLF, for forbidden characters."""
        if _NUL in body:
            self.fault = Fault.NUL
        if has_bare_line_end(body):
            self.fault = Fault.BARE_LINE_END

    def _measure(self, body: bytes) -> bytes:
        self.size += len(body)
        if self.fault is None and self.size > self._max_size:
            self.fault = Fault.TOO_BIG
        if self.fault is not None:
            return b""
        if self._lines is not None and not self.must_be_encoded and self._lines.too_long(body):
            if self._long_lines is LongLines.REJECT:
                self.fault = Fault.LONG_LINE
                return b""
            self.must_be_encoded = True
        return body


class DataReader(_Reader):
    """Reads one message from DATA; feed it until `done`, then check `fault`, and serve `rest` as commands."""

    def __init__(self, *, max_size: int, long_lines: LongLines) -> None:
        """Start just after the command line with DATA; for the arguments see `_Reader`."""
        super().__init__(max_size=max_size, long_lines=long_lines)
        self.done = False
        self.rest = b""
        """What the client sent after the end; empty until `done`."""
        # The reader starts with the CRLF of the command line, so that a dot at the very start is at the start
        # of a line. That CRLF is not part of the message: `_skip` octets of the next output are dropped.
        self._held = b"\r\n"
        self._skip = 2

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes from the client, split anywhere; return those that belong to the message.

        At most four bytes that might begin the end are held back until the next call. After a fault nothing
        is returned.
        """
        data = self._held + data
        # Most chunks have no dot at the start of a line, so neither an end nor a stuffed dot. Base64 has no
        # dot at all, and searching for one octet is ten times as fast as for three.
        dot = data.find(b"\r\n.") if _DOT in data else -1
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
    """Reads one message from the chunks of BDAT, which may be cut anywhere."""

    def __init__(self, *, max_size: int, long_lines: LongLines) -> None:
        super().__init__(max_size=max_size, long_lines=long_lines)
        self._held = b""
        self._whole_lines = True

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take the next bytes of the message; return those that have been checked, none after a fault.

        A CR at the end is held back until the next call.

        Args:
            data: octets of a chunk.
            last: they are the last of the message. A line without an end then gets CRLF, because the next hop
                may support only DATA.
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
    """Return the length of the longest tail of `data` that may be the beginning of an end of message."""
    for length in range(len(_END) - 1, 0, -1):
        if data.endswith(_END[:length]):
            return length
    return 0
