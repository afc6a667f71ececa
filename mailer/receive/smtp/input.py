"""The input buffer of a session; commands are read from it by line, messages by chunk."""

import asyncio

MAX_LINE = 12288 + 64
"""Octets of the longest line that is kept: an AUTH command with a full initial response (RFC 4954 4)."""
MAX_ENDLESS = 1024 * 1024
"""Octets of an overlong line that are discarded before the session is ended."""
HIGH_WATER = 128 * 1024
"""Unread octets at which the transport is paused; one more read may follow."""
HIGH_WATER_BEFORE_LOGIN = 4 * 1024
"""The same for a client that has not logged in: thousands of those must not fill the memory."""


class PeerGone(ConnectionError):
    """The client closed its side, or the connection broke; all input has been read."""


class LineTooLong(ValueError):
    """A line was longer than any command may be. It was discarded, including its end."""


class EndlessLine(ValueError):
    """More than MAX_ENDLESS octets of a line were discarded, and its end has not come."""


class Input:
    """Buffers bytes from one transport for one reader, and pauses the transport when it has too many."""

    def __init__(self) -> None:
        self.high_water = HIGH_WATER_BEFORE_LOGIN
        self.ended = False
        """Whether the client will send nothing more."""
        self.buffer = bytearray()
        """The unread input; the transport's owner appends to it."""
        self.paused = False
        """Whether the transport is paused."""
        self._dropped = 0
        """Octets of the current line that were discarded."""
        self._transport: asyncio.Transport | None = None

    def attach(self, transport: asyncio.Transport) -> None:
        """Set the transport to pause when too much is unread."""
        self._transport = transport

    def end(self) -> None:
        """Note that the client will send nothing more; buffered input can still be read."""
        self.ended = True

    def clear(self) -> None:
        """Discard unread input: the connection is lost, so no command could be answered."""
        self.buffer.clear()
        self.ended = True

    def discard(self) -> None:
        """Discard unread input before another protocol (TLS) takes over the transport."""
        self.buffer.clear()
        self._dropped = 0
        self.paused = False

    def unread(self, data: bytes) -> None:
        """Put bytes back, to be read next."""
        self.buffer[:0] = data

    def pause_if_full(self) -> None:
        """Pause the transport if too much is unread; called while the reader is busy."""
        if len(self.buffer) > self.high_water and self._transport is not None and not self.paused:
            self._transport.pause_reading()
            self.paused = True

    def resume(self) -> None:
        """Resume the transport: the reader has taken what it can, and needs the rest of a line."""
        if self.paused:
            self._go_on_reading()

    def read(self, most: int | None = None) -> bytes:
        """Return the buffered octets, at most `most` of them."""
        if most is None or most >= len(self.buffer):
            data = bytes(self.buffer)
            self.buffer.clear()
        else:
            data = bytes(self.buffer[:most])
            del self.buffer[:most]
        if self.paused:
            self._resume()
        return data

    def read_line(self) -> bytes | None:
        """Return the next line with its line end, or None if no whole line is buffered.

        A line ends with LF; the caller checks for the CR before it.

        Raises:
            LineTooLong: the line was too long, and was discarded.
            EndlessLine: the line has no end in sight; the caller must close the connection.
        """
        end = self.buffer.find(b"\n") + 1
        if not end:
            if len(self.buffer) > MAX_LINE:
                self._drop()
            return None
        line = bytes(self.buffer[:end])
        del self.buffer[:end]
        if self._dropped or end > MAX_LINE:
            self._dropped = 0
            raise LineTooLong
        return line

    def _drop(self) -> None:
        self._dropped += len(self.buffer)
        self.buffer.clear()
        if self.paused:
            self._resume()
        if self._dropped > MAX_ENDLESS:
            raise EndlessLine

    def _resume(self) -> None:
        if len(self.buffer) <= self.high_water:
            self._go_on_reading()

    def _go_on_reading(self) -> None:
        if self._transport is not None:
            self.paused = False
            self._transport.resume_reading()
