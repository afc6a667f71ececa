"""What an import needs of another relay's queue."""

import re
from abc import ABC, abstractmethod

import msgspec

MAX_FILE = 64 * 2**20
"""Octets of a queue's file that are read: base64 of the largest message that relays take, and more."""
_LINE_END = re.compile(rb"\r?\n")


class Queued(msgspec.Struct, frozen=True):
    """A message that another relay took and has not delivered to these recipients."""

    sender: str
    """Empty: the null sender."""
    recipients: tuple[str, ...]
    content: bytes
    """The message, with lines that end in CRLF."""


class Unreadable(Exception):
    """A message that cannot be imported as it is; the text says why."""


class Queue(ABC):
    """One relay's queue. Nothing may change it meanwhile: the relay must have been stopped."""

    identity: str
    """Where it is: the same name in two queues is two messages."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the messages that wait, in the order of their import; raises OSError."""

    @abstractmethod
    def look(self, name: str) -> Queued:
        """Read one message, and change nothing.

        Raises:
            Unreadable: it cannot be imported.
            OSError: it cannot be read.
        """

    def prepare(self) -> None:  # noqa: B027 - a queue that needs nothing
        """Make ready to finish messages, before the first is imported; raises OSError: none can be."""

    @abstractmethod
    def finish(self, name: str) -> None:
        """Take an imported message out of the queue, durably; raises OSError.

        After a failure it waits there still, and is known by its name when it is imported again.
        """


def with_crlf(content: bytes) -> bytes:
    """Return a message that was stored with lines that end in LF, as it goes over the wire."""
    return _LINE_END.sub(b"\r\n", content)
