"""The interface of another relay's queue, for imports."""

import re
from abc import ABC, abstractmethod

import msgspec

MAX_FILE = 64 * 2**20
"""Octets in one file of a queue; enough for the largest usual message in base64."""
_LINE_END = re.compile(rb"\r?\n")


class Queued(msgspec.Struct, frozen=True):
    """A message that another relay accepted and has not yet delivered to these recipients."""

    sender: str
    """The envelope sender; empty: the null sender."""
    recipients: tuple[str, ...]
    content: bytes
    """The message, with lines that end in CRLF."""


class Unreadable(Exception):
    """A message cannot be imported; the text says why."""


class Queue(ABC):
    """One relay's queue. The relay must have been stopped, so that the queue does not change meanwhile."""

    identity: str
    """The location of the queue, which distinguishes messages of the same name in two queues."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the queued messages, in the order of their import; raises OSError."""

    @abstractmethod
    def look(self, name: str) -> Queued:
        """Read one message without changing anything.

        Raises:
            Unreadable: the message cannot be imported.
            OSError: the message cannot be read.
        """

    def prepare(self) -> None:  # noqa: B027 - optional: many queues need nothing
        """Prepare to finish messages, before the first is imported; raises OSError if none could be."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an imported message from the queue durably; raises OSError.

        After a failure the message stays in the queue, and is recognised by its name at the next import.
        """


def with_crlf(content: bytes) -> bytes:
    """Return a message with CRLF line ends; it may have been stored with LF line ends."""
    return _LINE_END.sub(b"\r\n", content)
