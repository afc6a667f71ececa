"""The input buffer of a session: lines for commands, chunks for DATA, in the order of arrival."""

import asyncio

MAX_LINE = 12288 + 64
"""Octets of the longest line that is kept: an AUTH command with a full initial response (RFC 4954 4)."""
MAX_ENDLESS = 1024 * 1024
"""Octets of a line that are thrown away before we stop waiting for its end."""
HIGH_WATER = 128 * 1024
"""Octets unread at which the transport is told to pause; one more read may follow."""
LOW_HIGH_WATER = 4 * 1024
"""The same for a client that has not logged in: thousands of those must not fill the memory."""


class PeerGone(ConnectionError):
    """The client has closed its side, or the connection broke; everything that came has been read."""


class LineTooLong(ValueError):
    """A line was longer than any command may be. It has been thrown away, up to its end."""


class EndlessLine(ValueError):
    """A line was thrown away for so long that there is no point in waiting for its end."""


class Input:
    """Bytes from one transport to one reader."""

    def __init__(self) -> None:
        self.high_water = LOW_HIGH_WATER
        self.ended = False
        """Nothing more will come."""
        self._buffer = bytearray()
        self.paused = False
        """The transport was told to."""
        self._dropped = 0
        self._transport: asyncio.Transport | None = None

    def attach(self, transport: asyncio.Transport) -> None:
        """Name the transport that pauses when too much is unread."""
        self._transport = transport

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def end(self) -> None:
        """Nothing more will come; what is here can still be read."""
        self.ended = True

    def clear(self) -> None:
        """Forget what nobody has read: the connection is lost, and there is nobody to answer."""
        self._buffer.clear()
        self.ended = True

    def discard(self) -> None:
        """Throw away what nobody has read, before somebody else reads from the transport."""
        self._buffer.clear()
        self._dropped = 0
        self.paused = False

    def unread(self, data: bytes) -> None:
        """Put bytes back, to be read next."""
        self._buffer[:0] = data

    @property
    def pending(self) -> bool:
        return bool(self._buffer)

    def restrain(self) -> None:
        """Have the transport pause if much is unread: the reader is busy."""
        if len(self._buffer) > self.high_water and self._transport is not None and not self.paused:
            self._transport.pause_reading()
            self.paused = True

    def want(self) -> None:
        """Have the transport read on: the reader has taken what it can, and wants the rest of a line."""
        if self.paused:
            self._go_on_reading()

    def take(self, most: int | None = None) -> bytes:
        """Return what there is, at most so many octets."""
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        if self.paused:
            self._resume()
        return data

    def take_line(self) -> bytes | None:
        """Return the next line with its line end, or None while there is no whole one.

        A line ends with LF; whether CR stands before it is for the caller to judge.

        Raises:
            LineTooLong: this line, now gone.
            EndlessLine: close the connection.
        """
        end = self._buffer.find(b"\n") + 1
        if not end:
            if len(self._buffer) > MAX_LINE:
                self._drop()
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        if self.paused:
            self._resume()
        if self._dropped or end > MAX_LINE:
            self._dropped = 0
            raise LineTooLong
        return line

    def _drop(self) -> None:
        self._dropped += len(self._buffer)
        self._buffer.clear()
        if self.paused:
            self._resume()
        if self._dropped > MAX_ENDLESS:
            raise EndlessLine

    def _resume(self) -> None:
        if len(self._buffer) <= self.high_water:
            self._go_on_reading()

    def _go_on_reading(self) -> None:
        if self._transport is not None:
            self.paused = False
            self._transport.resume_reading()
