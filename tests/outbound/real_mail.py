"""The mail of the end-to-end tests: CPython's own corpus, and what is hard about mail."""

import base64
import random
import re
import smtplib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from testbed.tools import MissingToolError

SENDER = "app@example.com"
_HEADER = (
    b"From: <app@example.com>\r\n"
    b"To: <bob@example.net>\r\n"
    b"Subject: real mail\r\n"
    b"Date: Sun, 22 Nov 2026 21:45:01 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
)
_ATTACHED = 20 * 1000 * 1000
"""Octets, before base64 makes a third more of them."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A message with its envelope.

    Attributes:
        recipients: no other mail has any of them, so they tell which mail it is wherever it arrives.
        message: lines end in CRLF, the last one too, as every client sees to before it submits.
    """

    recipients: tuple[str, ...]
    message: bytes
    sender: str = SENDER


def python_corpus() -> list[Mail]:
    """Every message that CPython tests its email package with.

    Raises:
        MissingToolError: neither this interpreter nor Debian's package of its tests has them.
    """
    within = Path("test", "test_email", "data")
    interpreter = Path(sysconfig.get_path("stdlib")) / within
    # Debian's Python comes without its tests; any version's package of them will do.
    for directory in (interpreter, *sorted(Path("/usr/lib").glob(f"python3*/{within}"))):
        if files := sorted(directory.glob("msg_*.txt")):
            return [Mail((f"{file.stem}@corpus.example.net",), as_submitted(file)) for file in files]
    raise MissingToolError("CPython's test package")


def as_submitted(file: Path) -> bytes:
    """What a client makes of a file whose lines end as they please."""
    message = re.sub(rb"\r\n|\r|\n", b"\r\n", file.read_bytes())
    return message if message.endswith(b"\r\n") else message + b"\r\n"


def _with_body(body: bytes, header: bytes = b"") -> bytes:
    return _HEADER + header + b"\r\n" + body


def hard_mail() -> list[Mail]:
    """A dozen messages, each with something that mail programs are known to get wrong."""
    messages = {
        "dots": _with_body(b".\r\n..\r\n.leading\r\n\r\n.\r\n...\r\nlast.\r\n"),
        # Five octets, which divides no power of two: blocks of any usual size are cut at each place of the
        # pattern, between CR and LF and before a dot as well.
        "cut-anywhere": _with_body(b".\r\n\r\n" * 300_000),
        "ends-with-a-dot": _with_body(b"the line below is a dot\r\n.\r\n"),
        "empty-body": _with_body(b""),
        "no-empty-line": _HEADER,
        "no-header": b"\r\nThe first line was empty.\r\n",
        "no-header-nor-empty-line": b"Words without a colon\r\nand more of them\r\n",
        "8-bit": _with_body(
            b"UTF-8 \xc3\xa9, Latin-1 \xe9, neither \xff\xfe\r\n", b"Content-Transfer-Encoding: 8bit\r\n"
        ),
        "8-bit-header": _with_body(b"text\r\n", "X-Name: Grüße, \N{SNOWMAN}\r\n".encode()),
        # RFC 5321 4.5.3.1.6: the longest line there may be, and one that a doubled dot makes longer still.
        "998-octets": _with_body(b"x" * 998 + b"\r\n." + b"y" * 997 + b"\r\n"),
        "white-space": _with_body(
            b"From here\r\n>From there\r\n trailing \t \r\n\t\r\n\x0c\x7f\r\n\r\n\r\n\r\n",
            b"X-Folded: a \r\n\t b\r\n",
        ),
        "looks-like-the-spool": _with_body(
            b'Spool-Length: 0000000001\r\n{"event":"sent"}\r\n',
            b"Spool-Format: 9\r\nSpool-Recipient: <mallory@example.org>\r\n",
        ),
    }
    mails = [Mail((f"{name}@hard.example.net",), message) for name, message in messages.items()]
    text = _with_body(b"text\r\n")
    return [
        *mails,
        Mail(("from-nobody@hard.example.net",), text, sender=""),
        Mail(tuple(f"{name}-of-three@{name}.example.net" for name in ("ann", "bob", "eve")), text),
    ]


def with_large_attachment() -> Mail:
    """20 MB that no compression would shrink, as base64."""
    attached = base64.encodebytes(random.Random(20).randbytes(_ATTACHED)).replace(b"\n", b"\r\n")
    header = b"MIME-Version: 1.0\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n"
    return Mail(("large@hard.example.net",), _with_body(attached, header))


def internationalized() -> list[Mail]:
    """Mail that needs SMTPUTF8 (RFC 6531): for its addresses, its header, or both."""
    header = "X-Name: Пеле́\r\n".encode()
    return [
        Mail(
            ("δοκιμή@παράδειγμα.example",),
            _with_body("Grüße\r\n".encode(), header),
            sender="pelé@example.com",
        ),
        Mail(("utf-8-sender@example.net",), _with_body(b"ascii\r\n"), sender="用户@例子.example"),
    ]


class Refused(AssertionError):
    """The server objected to a message."""


def submit(client: smtplib.SMTP, mail: Mail) -> str:
    """Submit one of several in a session that has said EHLO, and return the reply.

    Raises:
        Refused: the server objects, to anything.
    """
    beyond_ascii = not "".join((mail.sender, *mail.recipients)).isascii()
    options = ["BODY=8BITMIME"] * (not mail.message.isascii()) + ["SMTPUTF8"] * beyond_ascii
    client.command_encoding = "utf-8" if beyond_ascii else "ascii"
    said = [client.mail(mail.sender, options), *map(client.rcpt, mail.recipients), client.data(mail.message)]
    if {code for code, _ in said} != {250}:
        raise Refused(said)
    return said[-1][1].decode()
