"""A message as a real next hop received it."""

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


def as_sent(stored: bytes) -> bytes:
    """Give back the CRLF line ends that a Unix server stores as LF."""
    return stored.replace(b"\n", b"\r\n")


def path_of(argument: bytes) -> str:
    """The address of `<a@b> PARAM=...`."""
    return argument.decode().removeprefix("<").partition(">")[0]
