"""Reads a message from standard input, and prepares it for SMTP."""

import os

from mailer.sendmail.addresses import addresses
from mailer.sendmail.failure import Failure

MOST = 256 * 2**20
"""Octets of a message, which is held in memory; no receiver accepts a larger one (`maxMessageSize`)."""
_PIECE = 2**20
_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT = tuple(b"resent-" + name for name in _RECIPIENTS)
_ATOM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~ ")
_NAME_BYTES = frozenset(range(33, 127)) - {ord(":")}


class Message:
    """A message, split into header fields and body; lines end in LF."""

    def __init__(self, data: bytes) -> None:
        """Parse a message with LF or CRLF line ends, or both; all CRs before an LF belong to the line end."""
        data = data.replace(b"\r\n", b"\n")
        if b"\r\n" in data:
            data = _without_more_cr(data)
        if data.startswith((b"From ", b">From ")):
            # Remove the separator line of an mbox file, which `git format-patch` and old programs write.
            data = data.partition(b"\n")[2]
        self.fields: list[bytes] = []
        """Complete fields, with their original folding, each with its LF."""
        self.body = data
        self._take_header(data)

    def _take_header(self, data: bytes) -> None:
        begin = at = 0
        while at < len(data):
            end = data.find(b"\n", at) + 1 or len(data)
            folded = at > begin and data[at] in b" \t"
            if not folded:
                if not _is_field(data[at:end]):
                    break
                if at > begin:
                    self.fields.append(data[begin:at])
                begin = at
            at = end
        if at > begin:
            self.fields.append(data[begin:at])
        self.body = data[at + data.startswith(b"\n", at) :]

    def has(self, name: bytes) -> bool:
        return any(_name(field) == name for field in self.fields)

    def recipients(self) -> list[str]:
        """Return the addresses of To, Cc and Bcc, or of Resent- fields if there are any (RFC 5322 3.6.6).

        Raises:
            Failure: with EX_DATAERR, if a field cannot be parsed.
        """
        names = _RESENT if any(self.has(name) for name in _RESENT) else _RECIPIENTS
        found: list[str] = []
        for field in self.fields:
            if _name(field) in names:
                value = os.fsdecode(field.partition(b":")[2].replace(b"\n", b""))
                found += addresses(value)
        return found

    def text(self) -> bytes:
        """Return the message with CRLF line ends, also at the end of the last line."""
        header = b"".join(field if field.endswith(b"\n") else field + b"\n" for field in self.fields)
        text = header + b"\n" + self.body
        if not text.endswith(b"\n"):
            text += b"\n"
        return text.replace(b"\n", b"\r\n")

    def wire(self) -> bytes:
        """Return the message for DATA: with stuffed dots, and the final dot."""
        text = self.text()
        return b"." * text.startswith(b".") + text.replace(b"\n.", b"\n..") + b".\r\n"


def read(fd: int, *, dot_ends: bool) -> bytes:
    """Read a message.

    Args:
        fd: the descriptor to read to its end.
        dot_ends: also stop at a line with only a dot.

    Raises:
        Failure: with EX_DATAERR, if it is larger than `MOST`.
    """
    gathered = bytearray()
    while piece := os.read(fd, _PIECE):
        searched = max(0, len(gathered) - 4)
        gathered += piece
        if dot_ends and (end := _dot(gathered, searched)) is not None:
            del gathered[end:]
            break
        if len(gathered) > MOST:
            raise Failure(os.EX_DATAERR, f"the message is larger than {MOST} octets")
    if dot_ends and (gathered == b"." or gathered.endswith((b"\n.", b"\n.\r"))):
        del gathered[gathered.rindex(b".") :]
    return bytes(gathered)


def _dot(gathered: bytearray, searched: int) -> int | None:
    """Return the offset of a line with only a dot; None: there is none yet."""
    if gathered.startswith((b".\n", b".\r\n")):
        return 0
    ends = [gathered.find(end, searched) for end in (b"\n.\n", b"\n.\r\n")]
    return min((end + 1 for end in ends if end >= 0), default=None)


def from_field(full_name: str, address: str) -> bytes:
    """Return a From field for a message without one."""
    if not full_name:
        return f"From: {address}\n".encode("utf-8", "surrogateescape")
    if not full_name.isascii() or not full_name.isprintable():
        from binascii import b2a_base64  # noqa: PLC0415 - rarely needed

        words = b2a_base64(full_name.encode("utf-8", "replace"), newline=False).decode()
        full_name = f"=?utf-8?b?{words}?="
    elif not _ATOM.issuperset(full_name):
        quoted = full_name.replace("\\", "\\\\").replace('"', '\\"')
        full_name = f'"{quoted}"'
    return f"From: {full_name} <{address}>\n".encode("utf-8", "surrogateescape")


def _without_more_cr(data: bytes) -> bytes:
    """Remove all CRs before each LF, in one pass."""
    text = bytearray()
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        text += data[at:end].rstrip(b"\r")
        text += b"\n"
        at = end + 2
    text += data[at:]
    return bytes(text)


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].rstrip(b" \t").lower()


def _is_field(line: bytes) -> bool:
    name, colon, _ = line.partition(b":")
    name = name.rstrip(b" \t")
    return bool(colon and name) and _NAME_BYTES.issuperset(name)
