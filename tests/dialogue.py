r"""Plays an SMTP dialogue that is written down in a file.

A file is lines; `#` begins a comment. In texts `\r \n \0 \t \\ \xNN` name bytes, and `\{3:ab}` is
`ababab`.

    with KEY VALUE      a field of Settings, before the first other line; `with login yes` requires the login
    C: text             the client sends the text and CRLF
    C- text             the client sends exactly the text
    S: 250 2.1.0        the server's next reply, multi-line or not, begins so; `550|554` is either
    S+ PIPELINING       one line of that reply is so
    S! STARTTLS         no line of that reply begins so
    half-close          the client closes its sending side
    closed              the server has closed the connection
    queued 1            so many messages are in the spool once the dialogue is over
    message text        the one queued message is exactly so, below our own field
    logged text         a log line contains this
    unlogged text       none does
"""

import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from receiving import CLOSED, OPEN, Receiver

from mailer.receive.settings import LongLines, Settings

_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|\{(\d+):([^}]*)\}|(.))")
_NAMED = {"r": b"\r", "n": b"\n", "0": b"\0", "t": b"\t", "\\": b"\\"}


@dataclass(frozen=True)
class Dialogue:
    settings: Settings
    steps: list[tuple[str, str]]
    after: list[tuple[str, str]] = field(default_factory=list)


def read(path: Path) -> Dialogue:
    settings = OPEN
    steps, after = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        word, _, text = line.partition(" ")
        match word:
            case "" | "#":
                continue
            case "with":
                settings = _changed(settings, *text.split(" ", 1))
            case "C:" | "C-" | "S:" | "S+" | "S!" | "half-close" | "closed":
                steps.append((word, text))
            case "queued" | "message" | "logged" | "unlogged":
                after.append((word, text))
            case _:
                raise AssertionError(f"{path}:{number}: no such step: {line}")
    assert after, f"{path} does not say what is queued"
    return Dialogue(settings, steps, after)


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


def play(dialogue: Dialogue, receiver: Receiver, *, split: int = 0) -> None:
    """Play it; every text that the client sends is cut in two writes after `split` bytes."""
    with socket.create_connection(receiver.address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = connection.makefile("rb")
        reply: list[str] = []
        for word, text in dialogue.steps:
            match word:
                case "C:":
                    _send(connection, unescape(text) + b"\r\n", split)
                case "C-":
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
                case "closed":
                    with suppress(ConnectionResetError):
                        assert replies.read() == b""


def check_after(dialogue: Dialogue, receiver: Receiver) -> None:
    """Check what is left once the receiver has stopped."""
    assert receiver.leftovers() == []
    for word, text in dialogue.after:
        match word:
            case "queued":
                assert len(receiver.messages()) == int(text)
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
    with suppress(BrokenPipeError, ConnectionResetError):
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


def _changed(settings: Settings, key: str, value: str) -> Settings:
    if key == "login":
        return CLOSED
    assert key in {known.name for known in fields(Settings)}, key
    return replace(settings, **{key: LongLines(value) if key == "long_lines" else int(value)})
