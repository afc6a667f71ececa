"""A message as a real next hop received it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message, with the envelope it came in.

    Attributes:
        sender: the reverse-path without brackets; empty for the null sender.
        recipients: in the order of RCPT; a Postfix mailbox holds one copy for each.
        message: the bytes after DATA, lines ended by CRLF, without the trace fields that the server itself
            put on top.
    """

    sender: str
    recipients: tuple[str, ...]
    message: bytes

    @property
    def body(self) -> bytes:
        """What follows the first empty line."""
        if self.message.startswith(b"\r\n"):
            return self.message[2:]
        return self.message.partition(b"\r\n\r\n")[2]


def take_field(stored: bytes, name: bytes) -> tuple[bytes, bytes]:
    """Split one header field off the top.

    Args:
        stored: a message with LF line ends.
        name: the field that must stand first.

    Returns:
        Its value with folding kept, and what follows it.

    Raises:
        AssertionError: another field stands there.
    """
    prefix = name + b":"
    assert stored.startswith(prefix), f"expected {name!r} at the top of {stored[:200]!r}"
    end = stored.index(b"\n")
    while stored[end + 1 : end + 2] in (b" ", b"\t"):
        end = stored.index(b"\n", end + 1)
    return stored[len(prefix) : end].strip(), stored[end + 1 :]


# What is ours names the spool's id, which is a ULID.
_ADDED = re.compile(rb"\A(?:Message-ID: <[0-9A-Z]{26}@[^>]*>\r\n)?(?:Date: [^\n]*\+0000\r\n)?")
_DROPPED = re.compile(rb"(?:return-path|bcc|resent-bcc)[ \t]*:", re.IGNORECASE)


def without_added(message: bytes) -> bytes:
    """Take off the fields that the relay puts below its Received when they are missing."""
    return _ADDED.sub(b"", message, count=1)


def as_taken(message: bytes) -> bytes:
    """What the relay takes of a message: all but the fields that it documents to drop, read line by line."""
    kept: list[bytes] = []
    in_header, dropping = True, False
    # Not splitlines: form feeds and others are no line ends here.
    for line in re.findall(rb"[^\n]*\n", message):
        in_header = in_header and line != b"\r\n"
        if in_header:
            dropping = dropping if line[:1] in b" \t" else _DROPPED.match(line) is not None
        if not (in_header and dropping):
            kept.append(line)
    return b"".join(kept)


def as_sent(stored: bytes) -> bytes:
    """Give back the CRLF line ends that a Unix server stores as LF."""
    return stored.replace(b"\n", b"\r\n")


def path_of(argument: bytes) -> str:
    """The address of `<a@b> PARAM=...`."""
    return argument.decode().removeprefix("<").partition(">")[0]
