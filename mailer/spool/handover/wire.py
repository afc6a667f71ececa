"""The protocol of a handover over two pipes: frames with a length, the sides in turn, and a version.

Each side first sends a greeting: the line `mailer-move 1` and a frame with a `Greeting`. Then the source
sends a batch: an `OFFER` and the file's bytes in `DATA` frames for each message, and `END`. The target makes
them all durable and sends one frame of `ANSWERS`. Then the source sends `RELEASE` with the messages that it
has given up, and the target answers again. The sides take turns, so they never block each other by writing at
the same time.
"""

import os
import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from mailer.mail.reply import printable
from mailer.spool.syscalls import write_all

_FIRST_LINE = b"mailer-move 1\n"
_HEAD = struct.Struct(">cI")
"""The kind of a frame, and the length of what follows."""
_LONGEST_PLACE = 500
"""Characters of a spool's name, which is shown to operators."""
_LONGEST = 4 * 2**20
"""Octets of a frame. Data comes in pieces of `CHUNK`; the list of a batch is a hundredth of this."""
CHUNK = 256 * 1024
MOST = 100
"""Messages of a batch that a target takes, each of which is an open file; a source offers half as many."""

GREETING, OFFER, DATA, END, ANSWERS, RELEASE = b"G", b"O", b"D", b"E", b"A", b"R"


_Content = TypeVar("_Content")


class Broken(ConnectionError):
    """The connection ended, or the other side broke this protocol."""


class Greeting(msgspec.Struct, frozen=True):
    """Which spool is at this end, for the journals."""

    place: str
    """Where it is, for operators to read."""
    spool: str
    """The word in its mark, which no other spool has; empty from a source."""


class Key(msgspec.Struct, frozen=True):
    """A file of `once/` that remembers the message under its idempotency key."""

    name: str
    content: str


class Offer(msgspec.Struct, frozen=True):
    """A message; its file follows."""

    id: str
    move: str
    """Names this handover of this message."""
    size: int
    """Octets of the file."""
    failed: bool
    """Whether it was given up, and its sender notified."""
    keys: tuple[Key, ...] = ()


class Given(msgspec.Struct, frozen=True):
    """A message that the source will never send: it belongs to the target."""

    id: str
    move: str


class Verdict(StrEnum):
    """The target's answer about one message."""

    HERE = "here"
    """To an offer: it is durable in this spool. To a release: it belongs to this spool."""
    REFUSED = "refused"
    """It is not in this spool, and this offer will not change that."""
    TROUBLE = "trouble"
    """It is not in this spool, and may be offered again later."""
    UNKNOWN = "unknown"
    """To an offer: it may be in this spool. To a release: this spool has never had it, or cannot tell."""


class Answer(msgspec.Struct, frozen=True):
    """The answer about one message, and the reason."""

    id: str
    verdict: Verdict
    reason: str = ""


class Pipe:
    """One end of the connection."""

    def __init__(self, reading: int, writing: int) -> None:
        """Args: two descriptors, which the caller closes."""
        self._reading = reading
        self._writing = writing

    def greet(self, here: Greeting) -> Greeting:
        """Exchange greetings; return the other side's. Raises Broken."""
        failed: Broken | None = None
        try:
            self._write(_FIRST_LINE)
            self.send(GREETING, here)
        except Broken as error:
            failed = error  # The other side's own words explain the failure better.
        first = b""
        while not first.endswith(b"\n") and len(first) < len(_FIRST_LINE):
            first += self._read(1)
        if first != _FIRST_LINE:
            raise Broken(f"it does not speak this version of the protocol, and began with {first!r}")
        told = self.decode(self.receive(GREETING), Greeting)
        if failed is not None:
            raise failed  # Otherwise both sides would wait for the other one.
        return Greeting(printable(told.place, _LONGEST_PLACE), printable(told.spool, _LONGEST_PLACE))

    def send(self, kind: bytes, content: msgspec.Struct | Sequence[msgspec.Struct] | bytes = b"") -> None:
        """Send a frame; raises Broken."""
        data = content if isinstance(content, bytes) else msgspec.json.encode(content)
        self._write(_HEAD.pack(kind, len(data)) + data)

    def next(self) -> tuple[bytes, bytes] | None:
        """Return the kind and the content of the next frame; None if the other side has ended properly."""
        first = self._some(_HEAD.size)
        if not first:
            return None
        kind, length = _HEAD.unpack(first + self._read(_HEAD.size - len(first)))
        if length > _LONGEST:
            raise Broken(f"it sent a frame of {length} octets")
        return kind, self._read(length)

    def receive(self, wanted: bytes) -> bytes:
        """Return the content of the next frame, which must be of this kind; raises Broken."""
        found = self.next()
        if found is None:
            raise Broken("it ended the connection")
        if found[0] != wanted:
            raise Broken(f"it sent {found[0]!r} instead of {wanted!r}")
        return found[1]

    @staticmethod
    def decode(data: bytes, kind: type[_Content]) -> _Content:
        """Decode the content of a frame; raises Broken."""
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise Broken(f"it sent what cannot be read: {error}") from error

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._some(length - len(data))
            if not more:
                raise Broken("it ended the connection")
            data += more
        return data

    def _some(self, most: int) -> bytes:
        """Read up to `most` octets; an empty result means that the other side ended the connection."""
        try:
            return os.read(self._reading, most)
        except OSError as error:
            raise Broken(error.strerror) from error

    def _write(self, data: bytes) -> None:
        try:
            write_all(self._writing, data)
        except OSError as error:
            raise Broken(f"it does not read any more: {error.strerror}") from error
