"""More targets: what next hops and providers answer, what applications post, and what stands in the spool."""

import random
from collections.abc import Callable
from contextlib import suppress

from mailer.mail.envelope import Recipient
from mailer.oauth.post import _moment
from mailer.receive.web.compose import compose, envelope_of
from mailer.receive.web.document import read
from mailer.receive.web.exchange import Problem
from mailer.send.http.addressed import addressed
from mailer.send.http.answer import Answer
from mailer.send.smtp.replies import MAX_LINES, BadReply, ReplyReader
from mailer.sendmail.failure import Failure
from mailer.sendmail.message import Message
from mailer.spool.entry import Block, Corrupt, encode_block, parse_block
from mailer.spool.fold import fold
from mailer.spool.journal import Kind, decode, decode_whole, encode
from mailer.spool.state.suppression import key

_CR_LF = b"\r\n"


def replies(data: bytes) -> None:
    """Replies are the same however the stream is cut, and are bounded."""
    whole, cut = _replies([data]), _replies(_pieces(data))
    assert whole == cut
    for code, lines in whole:
        assert 200 <= code < 600
        assert len(lines) <= MAX_LINES


def _pieces(data: bytes) -> list[bytes]:
    draw, pieces = random.Random(len(data)), []
    while data:
        size = draw.choice((1, 2, 5, 100))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def _replies(pieces: list[bytes]) -> list[tuple[int, tuple[str, ...]]]:
    reader, found = ReplyReader(), []
    with suppress(BadReply):
        for piece in pieces:
            reader.feed(piece)
            while reply := reader.next():
                found.append((reply.code, reply.lines))
    return found


def answer(data: bytes) -> None:
    """Whatever an interface over HTTP answers is said in one printable line, and its pause is a time."""
    head, _, body = data.partition(b"\n\n")
    fields = (line.partition(": ") for line in head.decode("latin-1").split("\n"))
    headers = {name: value for name, _, value in fields}
    for status in (202, 429, 500):
        said = Answer(status, headers, body)
        assert said.line(2).isprintable()
        assert said.pause is None or said.pause >= 0
    _moment(headers.get("Date", ""))


def document(data: bytes) -> None:
    """A posted mail is refused in words, or becomes a message with no control in its header."""
    message = b""
    with suppress(Problem):
        mail = read(data)
        envelope_of(mail)
        message = compose(mail) if mail.raw is None else b""
    made = message.partition(_CR_LF * 2)[0]
    assert not set(made.replace(_CR_LF, b"")) & set(b"\r\n\0")


def header(data: bytes) -> None:
    """A header for an interface that reads recipients there has each of its fields once."""
    lines = (line for line in data.translate(None, b"\0\r").split(b"\n") if line)
    fields = b"".join(line + _CR_LF for line in lines)
    made = addressed(fields, ["a@example.com", "b@example.net"])
    named = [line for line in made.split(_CR_LF) if line.lower().startswith((b"to:", b"cc:", b"bcc:"))]
    assert len({line.partition(b":")[0].lower() for line in named}) == len(named)


def sendmail(data: bytes) -> None:
    """A message on standard input goes out with CRLF line ends alone; its fields and body are all of it."""
    message = Message(data)
    with suppress(Failure):
        message.recipients()
    text = message.text()
    assert text.endswith(_CR_LF)
    assert b"\n" not in text.replace(_CR_LF, b"")


def block(data: bytes) -> None:
    """An envelope in the spool is refused, or is the one that would be written."""
    try:
        found = parse_block(data)
    except Corrupt:
        return
    assert isinstance(found, Block)
    with suppress(ValueError):
        written = encode_block(found).partition(b"\r\nSpool-Length: ")[0]
        assert parse_block(written) == found


def journal(data: bytes) -> None:
    """Lines that count come out as they would be written; no line undoes that a recipient was sent to."""
    events = list(decode(data))
    assert list(decode(b"".join(map(encode, events)))) == events
    assert decode_whole(data) in ([], events)
    state = fold([Recipient("a@b.c"), Recipient("d@e.f")], events)
    sent = {to for event in events if event.event == Kind.SENT for to in event.to}
    for standing in state.standings:
        assert standing.address not in sent or standing.status == "sent"


def suppressed(data: bytes) -> None:
    """An address or a domain is compared by a spelling that is its own."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(ValueError):
        once = key(text)
        assert key(once) == once


_BLOCK = (
    b"Spool-Format: 1\r\nSpool-Id: 01M82KGEY3WBBXBFP3K78QFDBH\r\n"
    b"Spool-Received: 2026-11-22T21:45:01.123456Z\r\nSpool-User: a\r\nSpool-Peer: 127.0.0.1\r\n"
    b"Spool-Options: BODY=8BITMIME ENVID=x\r\nSpool-Sender: <a@b.c>\r\n"
    b"Spool-Recipient: <d@e.f> NOTIFY=FAILURE ORCPT=rfc822;d@e.f"
)
_JOURNAL = (
    b'{"at":"2026-11-22T21:45:02Z","event":"committing","to":["a@b.c"],"hop":"h:25","attempt":1}\r\n'
    b'{"at":"2026-11-22T21:45:03Z","event":"sent","to":["a@b.c"],"attempt":1}\r\n'
    b'{"at":"2026-11-22T21:45:03Z","event":"deferred","to":["d@e.f"],"next":"2026-11-22T21:50:03Z"}\r\n{"at'
)
TARGETS: dict[str, Callable[[bytes], None]] = {
    "replies": replies,
    "answer": answer,
    "document": document,
    "header": header,
    "sendmail": sendmail,
    "block": block,
    "journal": journal,
    "suppressed": suppressed,
}
SEEDS = {
    "replies": [b"220 x\r\n250-a\r\n250 b\r\n", b"354\n571 5.7.1 no\r\n", b"250-a\r\n251 b\r\n"],
    "answer": [
        b'Retry-After: 7\n\n{"error": {"code": "TooMany", "message": "no"}}',
        b"Date: Sun, 29 Nov 2026 19:00:00 GMT\nRetry-After: Sun, 29 Nov 2026 19:00:07 GMT\n\nForbidden",
        b"Date: Sun, 29 Nov 99999999999999999999 19:00:00 GMT\n\n",
    ],
    "document": [
        b'{"from":"A <a@b.example>","to":["c@d.example"],"subject":"s","text":"t","headers":{"X-A":"b"}}',
        b'{"from":"a@b.example","to":"c@d.example","attachments":[{"filename":"a","content":"YQ=="}]}',
    ],
    "header": [b'To: "A, B" <a@example.com>, b@example.net\nCc: c@example.org\nSubject: x\n y\n'],
    "sendmail": [b"From x\nTo: a@b.c (x), d <e@f.g>\nBcc: h\n i\n\nbody\n.\n", b"no header\r\r\n"],
    "block": [_BLOCK],
    "journal": [_JOURNAL],
    "suppressed": [b"Bob@Example.net", "@b\u00fccher.example".encode(), b'"a\\ b"@x.example'],
}
