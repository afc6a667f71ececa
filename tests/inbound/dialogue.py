r"""Plays an SMTP dialogue that is written down in a file.

A file is lines; `#` begins a comment. In texts `\r \n \0 \t \\ \xNN` name bytes, and `\{3:ab}` is
`ababab`.

    with KEY VALUE      a field of Settings, before the first other line; or what the receiver has:
    with login yes      the login is required
    with certificate yes, with cram_md5 yes
    with sender PATTERN USER may send as these only; once for each
    with per_hour N     messages that one sender may submit
    with allowed PATTERN, with rewrite_from POLICY
    C: text             the client sends the text and CRLF
    C- text             the client sends exactly the text
    S: 250 2.1.0        the server's next reply, multi-line or not, begins so; `550|554` is either
    S+ PIPELINING       one line of that reply is so
    S! STARTTLS         no line of that reply begins so
    tls                 the client begins TLS, as STARTTLS promised
    garbage text        the client sends this where TLS should begin
    half-close          the client closes its sending side
    closed              the server has closed the connection
    queued 1            so many messages are in the spool once the dialogue is over
    message text        the one queued message is exactly so, below our own field
    stored text         the one spool file contains this; `unstored text`: it does not
    logged text         a log line contains this
    unlogged text       none does
"""

import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from inbound.receiving import CLOSED, OPEN, Receiver
from mailer.config.receiving import LongLines, RewriteFrom
from mailer.mail.patterns import AddressPatterns
from mailer.receive.content.header_policy import ContentPolicy
from mailer.receive.settings import Settings

_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|\{(\d+):([^}]*)\}|(.))")
_NAMED = {"r": b"\r", "n": b"\n", "0": b"\0", "t": b"\t", "\\": b"\\"}


@dataclass(frozen=True)
class Setup:
    """The receiver that a dialogue needs."""

    settings: Settings
    certificate: bool = False
    cram_md5: bool = False
    senders: tuple[str, ...] = ()
    per_hour: int = 0


@dataclass(frozen=True)
class Dialogue:
    setup: Setup
    steps: list[tuple[str, str]]
    after: list[tuple[str, str]] = field(default_factory=list)


def read(path: Path) -> Dialogue:
    setup = Setup(OPEN)
    steps, after = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        word, _, text = line.partition(" ")
        match word:
            case "" | "#":
                continue
            case "with":
                setup = _changed(setup, *text.split(" ", 1))
            case "C:" | "C-" | "S:" | "S+" | "S!" | "half-close" | "closed" | "tls" | "garbage":
                steps.append((word, text))
            case "queued" | "message" | "stored" | "unstored" | "logged" | "unlogged":
                after.append((word, text))
            case _:
                raise AssertionError(f"{path}:{number}: no such step: {line}")
    assert after, f"{path} does not say what is queued"
    return Dialogue(setup, steps, after)


def unescape(text: str) -> bytes:
    out, end = [], 0
    for found in _ESCAPE.finditer(text):
        code, count, repeated, named = found.groups()
        out.append(text[end : found.start()].encode())
        if code:
            out.append(bytes.fromhex(code))
        elif count:
            out.append(unescape(repeated) * int(count))
        else:
            out.append(_NAMED[named])
        end = found.end()
    return b"".join([*out, text[end:].encode()])


def play(  # noqa: C901 - one case for each word of the language
    dialogue: Dialogue, receiver: Receiver, *, split: int = 0, tls: ssl.SSLContext | None = None
) -> None:
    """Play it; every text that the client sends is cut in two writes after `split` bytes.

    Args:
        dialogue: what is said.
        receiver: to whom; with `tls`, its second address has implicit TLS.
        split: see above; 0: in one write.
        tls: the client's context: all is said in TLS.
    """
    address = receiver.server.addresses[1] if tls else receiver.address
    connection = socket.create_connection(address, timeout=20)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            connection = tls.wrap_socket(connection, server_hostname="localhost")
        replies = connection.makefile("rb")
        reply: list[str] = []
        for word, text in dialogue.steps:
            match word:
                case "C:":
                    _send(connection, unescape(text) + b"\r\n", split)
                case "C-" | "garbage":
                    _send(connection, unescape(text), split)
                case "S:":
                    reply = _reply(replies)
                    assert any(reply[0].startswith(start) for start in _starts(text)), (text, reply)
                case "S+":
                    assert text in [line[4:] for line in reply], (text, reply)
                case "S!":
                    assert not any(line[4:].startswith(text) for line in reply), (text, reply)
                case "half-close":
                    connection.shutdown(socket.SHUT_WR)
                case "tls":
                    connection, replies = _in_tls(connection, replies, receiver)
                case "closed":
                    with suppress(ConnectionResetError, ssl.SSLError):
                        assert replies.read() == b""
        replies.close()
    finally:
        connection.close()


def _in_tls(connection: socket.socket, replies, receiver: Receiver):
    replies.close()
    connection = receiver.trust.wrap_socket(connection, server_hostname="localhost")
    return connection, connection.makefile("rb")


def check_after(dialogue: Dialogue, receiver: Receiver) -> None:
    """Check what is left once the receiver has stopped."""
    assert receiver.leftovers() == []
    for word, text in dialogue.after:
        match word:
            case "queued":
                assert len(receiver.messages()) == int(text)
            case "stored":
                [entry] = (receiver.spool / "new").iterdir()
                assert unescape(text) in entry.read_bytes(), entry.read_bytes()
            case "unstored":
                [entry] = (receiver.spool / "new").iterdir()
                assert unescape(text) not in entry.read_bytes(), entry.read_bytes()
            case "message":
                assert receiver.messages() == [unescape(text)]
            case "logged":
                assert any(text in line for line in receiver.log), receiver.log
            case "unlogged":
                assert not any(text in line for line in receiver.log), receiver.log


def _starts(text: str) -> list[str]:
    """`550|554 5.6` is 550 with whatever, or 554 5.6."""
    return text.split("|")


def _send(connection: socket.socket, data: bytes, split: int) -> None:
    # The server may have closed: its last reply says why.
    with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
        if 0 < split < len(data):
            connection.sendall(data[:split])
            data = data[split:]
        connection.sendall(data)


def _reply(replies) -> list[str]:
    lines: list[str] = []
    while not lines or lines[-1][3:4] == "-":
        line = replies.readline()
        assert line.endswith(b"\r\n"), (lines, line)
        lines.append(line[:-2].decode())
        assert lines[-1][:3] == lines[0][:3]
        assert lines[-1].isprintable()
    return [f"{line[:3]} {line[4:]}" for line in lines]


def _changed(setup: Setup, key: str, value: str) -> Setup:
    match key:
        case "login":
            return replace(setup, settings=CLOSED)
        case "certificate":
            return replace(setup, certificate=True)
        case "cram_md5":
            return replace(setup, cram_md5=True)
        case "sender":
            return replace(setup, senders=(*setup.senders, value))
        case "per_hour":
            return replace(setup, per_hour=int(value))
    kinds = {
        "long_lines": LongLines,
        "redirect_all_to": str,
        "allowed": lambda text: AddressPatterns.of(tuple(text.split())),
        "rewrite_from": lambda text: ContentPolicy(
            rewrite_from=RewriteFrom(text), from_address="ours@example.com"
        ),
        "strict_syntax": lambda text: text == "yes",
        "origin_domain": str,
        "alias": lambda text: dict([text.split()]),
        "hide_client": lambda _: ContentPolicy(hide_client=True),
    }
    names = {
        "allowed": "allowed_recipients",
        "rewrite_from": "content",
        "hide_client": "content",
        "alias": "aliases",
    }
    name = names.get(key, key)
    assert name in {known.name for known in fields(Settings)}, key
    return replace(setup, settings=replace(setup.settings, **{name: kinds.get(key, int)(value)}))
