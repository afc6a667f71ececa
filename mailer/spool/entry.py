"""The spool file's format: an envelope block, the message, the journal.

    Spool-Format: 1
    Spool-Id: 01JD0M3Q5V8Z7X2C4B6N8M0K1J
    Spool-Received: 2026-11-22T21:45:01.123456Z
    Spool-User: noreply@example.com
    Spool-Peer: 127.0.0.1
    Spool-Options: BODY=8BITMIME SMTPUTF8
    Spool-Sender: <app@example.com>
    Spool-Recipient: <bob@example.net> NOTIFY=FAILURE
    Spool-Length: 0000012345
    (exactly that many bytes: the message)
    {"at":"...","event":"accepted","sha256":"...","envelope":"..."}

The block's fields look like header fields, so the whole is a valid RFC 5322 message for any mail program. The
block ends with the length, of fixed width: it is written last, into its place, when a streamed message is
complete. The message itself is opaque; `Spool-` fields inside it mean nothing.

`sha256` is the digest of the message, as printed by `mailer spool show ID --raw | sha256sum`. `envelope` is
the digest of the block, so that a flipped bit in a recipient does not send the mail to another address.
"""

import os
from functools import cache
from operator import itemgetter, methodcaller
from typing import TYPE_CHECKING

import msgspec

from mailer.mail import clock
from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.lazy_pattern import compile_late
from mailer.spool import journal
from mailer.spool.fold import fold
from mailer.spool.ids import is_id
from mailer.spool.message_state import State
from mailer.spool.syscalls import read_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

FORMAT = "1"
_LENGTH_FIELD = b"Spool-Length: "
LENGTH_DIGITS = 10
LENGTH_WIDTH = LENGTH_DIGITS + 2
"""Bytes of the length with its line end, which are written last."""
BEFORE_LENGTH = b"\r\n" + _LENGTH_FIELD
_END = compile_late(BEFORE_LENGTH + rb"(\d{10})\r\n")

_FIRST_READ = 16 * 1024
"""Bytes; one read of them gets the block, the message and the journal of nearly every mail."""
LARGEST_BLOCK = 24 * 1024 * 1024
"""Bytes; a larger block is neither written nor read. The largest `maxRecipients`, each with the longest RCPT,
needs less."""
_LARGEST_JOURNAL = 256 * 1024 * 1024
"""Bytes. Runners give up a message at an eighth of it (`send.outcome_lines`); earlier versions did not."""

_NO_CONTROLS = bytes({*range(256)} - {*range(32), 0x7F})
_SINGLE_LINES = 8
"""Lines of a block beside those of its recipients."""
_PATH = compile_late(r'<((?:"(?:[^"\\]|\\.)*"|[^">])*)>(?: (.*))?')

_divided, _name_and_value = methodcaller("partition", ": "), itemgetter(0, 2)
"""With `map`, they take a fifth of the time of a loop over the lines."""


class Corrupt(ValueError):
    """A spool file must not be sent; the text says what is wrong with it."""


class Block(msgspec.Struct, frozen=True):
    """The envelope block: what was known when the message arrived."""

    id: str
    received: float
    """Seconds since the epoch, to the microsecond."""
    user: str
    """The authenticated user; empty if no login was required."""
    peer: str
    envelope: Envelope


class Entry(msgspec.Struct, frozen=True):
    """The parts of a spool file that was read: its block, the message's position, the folded journal."""

    block: Block
    offset: int
    length: int
    state: State
    size: int
    """The file's size in bytes when it was read; anything beyond was appended later."""
    torn: bool
    """The file does not end in a line end, so that the next append must end the line first."""

    @property
    def id(self) -> str:
        return self.block.id

    @property
    def envelope(self) -> Envelope:
        return self.block.envelope


def encode_block(block: Block, length: int = 0) -> bytes:
    """Encode a block; its last line is the length, `LENGTH_DIGITS` wide.

    Raises:
        ValueError: a value has a control character, which a line cannot hold.
    """
    envelope = block.envelope
    encoded = (
        f"Spool-Format: {FORMAT}\r\n"
        f"Spool-Id: {block.id}\r\n"
        f"Spool-Received: {clock.rfc3339(block.received)}\r\n"
        f"Spool-User: {block.user}\r\n"
        f"Spool-Peer: {block.peer}\r\n"
        f"Spool-Options: {_options(envelope)}\r\n"
        f"Spool-Sender: <{envelope.sender}>\r\n"
        f"{''.join(map(_recipient_line, envelope.recipients))}"
        f"Spool-Length: {length:0{LENGTH_DIGITS}d}\r\n"
    ).encode()
    # Of all control characters, it has only the ends of its own lines.
    if encoded.translate(None, _NO_CONTROLS) != b"\r\n" * (_SINGLE_LINES + len(envelope.recipients)):
        raise ValueError("a control character in the envelope")
    return encoded


def with_length(block: bytes, length: int) -> bytes:
    """Replace the length in an encoded block; nothing else changes."""
    return block[:-LENGTH_WIDTH] + f"{length:0{LENGTH_DIGITS}d}\r\n".encode()


def _options(envelope: Envelope) -> str:
    if not (envelope.body or envelope.smtputf8 or envelope.ret or envelope.envid):
        return ""
    options = [
        f"BODY={envelope.body}" if envelope.body else "",
        "SMTPUTF8" if envelope.smtputf8 else "",
        f"RET={envelope.ret}" if envelope.ret else "",
        f"ENVID={envelope.envid}" if envelope.envid else "",
    ]
    return " ".join(filter(None, options))


def _recipient_line(recipient: Recipient) -> str:
    notify = f" NOTIFY={recipient.notify}" if recipient.notify else ""
    orcpt = f" ORCPT={recipient.orcpt}" if recipient.orcpt else ""
    return f"Spool-Recipient: <{recipient.address}>{notify}{orcpt}\r\n"


@cache
def _sha256() -> "Callable[[bytes], _Hash]":
    from hashlib import sha256  # noqa: PLC0415 - loads OpenSSL, 4 ms, and listings read no whole entry

    return sha256


def parse_block(data: bytes) -> Block:
    """Parse a block, up to and without its length.

    Raises:
        Corrupt: it is not a block, is of a later format, or is damaged.
    """
    try:
        lines = data.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise Corrupt("the envelope is not UTF-8") from error
    if lines[0].partition(": ")[0] != "Spool-Format":
        raise Corrupt("it does not begin with Spool-Format")
    fields = [*map(_divided, lines)]
    single = dict(map(_name_and_value, fields))
    if single["Spool-Format"] != FORMAT:
        raise Corrupt(f"format {single['Spool-Format'][:20]!r} is not known to this version")
    if len(single) == len(fields):  # Nearly every mail has one recipient.
        addressed = [single["Spool-Recipient"]] if "Spool-Recipient" in single else []
    else:
        addressed = [value for name, _, value in fields if name == "Spool-Recipient"]
    try:
        options = _parameters(single["Spool-Options"])
        block = Block(
            id=single["Spool-Id"],
            received=clock.seconds(single["Spool-Received"]),
            user=single["Spool-User"],
            peer=single["Spool-Peer"],
            envelope=Envelope(
                sender=_path(single["Spool-Sender"])[0],
                recipients=tuple(map(_recipient, addressed)),
                body=options.get("BODY", ""),
                smtputf8="SMTPUTF8" in options,
                ret=options.get("RET", ""),
                envid=options.get("ENVID", ""),
            ),
        )
    except KeyError as error:
        raise Corrupt(f"{error.args[0]} is missing") from error
    except ValueError as error:
        raise Corrupt(str(error)) from error
    if not is_id(block.id):
        raise Corrupt("Spool-Id is not an id")
    if not addressed:
        raise Corrupt("it has no recipient")
    return block


def _recipient(value: str) -> Recipient:
    address, rest = _path(value)
    if not rest:
        return Recipient(address)
    parameters = _parameters(rest)
    return Recipient(address, parameters.get("NOTIFY", ""), parameters.get("ORCPT", ""))


def _path(value: str) -> tuple[str, str]:
    if value[:1] == "<" and value[-1:] == ">" and '"' not in value and ">" not in value[:-1]:
        return value[1:-1], ""  # Nearly all addresses; twice as fast as the pattern.
    found = _PATH.fullmatch(value)
    if found is None:
        raise Corrupt("an address is not in angle brackets")
    return found.group(1), found.group(2) or ""


def _parameters(text: str) -> dict[str, str]:
    if not text:
        return {}
    return {name: value for name, _, value in (word.partition("=") for word in text.split(" ") if word)}


def read_beginning(fd: int, size: int) -> bytes:
    """Read the start of a spool file of that size: all of it, for nearly every mail. Raises OSError."""
    return read_at(fd, min(_FIRST_READ, size), 0)


def read_entry(
    fd: int, name: str, *, boot: str = "", size: int | None = None, beginning: bytes | None = None
) -> Entry:
    """Read a spool file through its descriptor, except for the message's bytes.

    Args:
        fd: open for reading; its offset is neither used nor changed.
        name: the file's name, which its Spool-Id must equal.
        boot: this boot's id, for counting the runners that died with the message.
        size: how many of the file's bytes to read, if the caller knows its size.
        beginning: the result of `read_beginning`, if it was just called.

    Raises:
        Corrupt: the file must not be sent. The message's own digest is not checked here: see `check_message`.
        OSError: it cannot be read; an unreadable sector is not taken for the end of the file.
    """
    size = os.fstat(fd).st_size if size is None else size
    head = read_beginning(fd, size) if beginning is None else beginning
    # Found first, since a pattern looks at each octet before.
    while (end := _END.match(head, head.find(BEFORE_LENGTH))) is None:
        if not head.startswith(b"Spool-Format: "[: len(head)]) or len(head) > LARGEST_BLOCK:
            raise Corrupt("it does not begin with a spool envelope")
        more = read_at(fd, min(max(_FIRST_READ, len(head)), size - len(head)), len(head))
        if not more:
            raise Corrupt("the envelope ends before Spool-Length")
        head += more
    block = parse_block(head[: end.start()])
    if block.id != name:
        raise Corrupt(f"its Spool-Id is {block.id}")
    offset, length = end.end(), int(end.group(1))
    lines = _read_journal(fd, head, offset + length, size)
    events = journal.decode_whole(lines) or journal.decode(lines)
    state = fold(block.envelope.recipients, events, boot=boot)
    if state.accepted is None:
        raise Corrupt("it is incomplete: no accepted line follows the message")
    if state.accepted.envelope != _sha256()(head[:offset]).hexdigest():
        raise Corrupt("the envelope's digest differs from the accepted one")
    return Entry(block, offset, length, state, size, torn=not lines.endswith(b"\n"))


def _read_journal(fd: int, head: bytes, start: int, size: int) -> bytes:
    if len(head) >= size:
        return head[start:]
    if size - start > _LARGEST_JOURNAL:
        raise Corrupt("the journal is too long to be one")
    return read_at(fd, max(0, size - start), start)


_CHUNK = 256 * 1024


def check_message(fd: int, entry: Entry, *, whole: bytes = b"") -> None:
    """Compare the message with the digest that was recorded when it was accepted.

    Args:
        fd: open for reading.
        entry: the result of `read_entry` for the file.
        whole: the file's bytes, if they were read already.

    Raises:
        Corrupt: it differs or is cut short; no part of it may be sent.
        OSError: it cannot be read.
    """
    position, end = entry.offset, entry.offset + entry.length
    digest = _sha256()(whole[position:end])
    if whole:
        position = end
    while position < end and (chunk := read_at(fd, min(_CHUNK, end - position), position)):
        digest.update(chunk)
        position += len(chunk)
    if entry.state.accepted is None or digest.hexdigest() != entry.state.accepted.sha256:
        raise Corrupt("the message's digest differs from the accepted one")
