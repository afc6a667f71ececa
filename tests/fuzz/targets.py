"""What is fuzzed, and what must hold for every input: functions of bytes, for atheris and for pytest."""

import asyncio
import atexit
import email
import pathlib
import random
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable
from email.message import Message
from functools import cache

from mailer.config.receiving import LongLines
from mailer.mail.address import AddressError, Lenient, Path, forward_path, reverse_path
from mailer.mail.author import mailboxes
from mailer.mail.envelope import Envelope, Recipient
from mailer.maillog.events import Fields, Level, MailLog
from mailer.maillog.stderr import logfmt
from mailer.receive.content.data import MAX_LINE, ChunkReader, DataReader
from mailer.receive.content.long_lines import encode
from mailer.receive.content.mime_header import Unencodable
from mailer.receive.context import Client, ReceiverContext
from mailer.receive.settings import Settings
from mailer.receive.smtp.parameters import ParameterError, mail_parameters, rcpt_parameters
from mailer.receive.smtp.session import Session
from mailer.receive.upload import Store
from mailer.receive.users.accounts import Accounts, single_login
from mailer.receive.users.failures import Failures
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming

END = b"\r\n.\r\n"


def path(data: bytes) -> None:
    """A path is taken byte for byte and has nothing a terminal obeys, or is refused; parameters likewise."""
    text = data.decode("utf-8", "surrogateescape")
    lenient = Lenient("origin.example")
    for read in (
        reverse_path,
        forward_path,
        lambda text: reverse_path(text, lenient),
        lambda text: forward_path(text, lenient),
    ):
        found = _taken(read, text)
        if not isinstance(found, Path):
            continue
        strict = read in {reverse_path, forward_path}
        assert (f"<{found.address}>" if strict else found.address.removesuffix("@origin.example")) in text
        # Not `isprintable`: domains in Persian need a joiner, and IDNA knows newer letters than we do.
        assert not {unicodedata.category(letter) for letter in found.address} & {"Cc", "Cs", "Zl", "Zp"}
        for parse in (mail_parameters, rcpt_parameters):
            _taken(parse, found.parameters)


def _taken(read: Callable[[str], object], text: str) -> object:
    """Return what is read; nothing if it is refused as the protocol has it."""
    try:
        return read(text)
    except (AddressError, ParameterError) as error:
        if error.code not in {501, 555}:
            raise
    return None


def author(data: bytes) -> None:
    """Whoever is read from a From field has an address."""
    for _, address in mailboxes(data) or []:
        assert "@" in address


def data_reader(data: bytes) -> None:
    """A message and what follows it are found as a search for the end finds them, at any split."""
    seed, stream = data[:2], data[2:]
    draw = random.Random(seed)
    reader = DataReader(max_size=1 << 20, long_lines=LongLines.PASS)
    out, at = bytearray(), 0
    while at < len(stream) and not reader.done:
        size = draw.choice((1, 2, 3, 5, 64, 4096))
        out += reader.feed(stream[at : at + size])
        at += size
    end = (b"\r\n" + stream).find(END)
    assert reader.done == (end >= 0)
    if not reader.done:
        return
    message = stream[:end]
    assert reader.rest + stream[at:] == stream[end + 3 :]
    clean = not set(message.replace(b"\r\n", b"")) & set(b"\r\n\0")
    assert (reader.fault is None) == clean
    if clean:
        lines = message.split(b"\r\n")
        assert out == b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


def chunks(data: bytes) -> None:
    """A message in chunks comes out as it went in, or is refused for what no message may have."""
    draw = random.Random(data[:2])
    stream = data[2:]
    reader = ChunkReader(max_size=1 << 20, long_lines=LongLines.PASS)
    out, at = bytearray(), 0
    while at < len(stream):
        size = draw.choice((1, 2, 3, 5, 64))
        out += reader.feed(stream[at : at + size])
        at += size
    out += reader.feed(b"", last=True)
    whole = stream if stream.endswith(b"\r\n") or not stream else stream + b"\r\n"
    clean = not set(whole.replace(b"\r\n", b"")) & set(b"\r\n\0")
    assert (reader.fault is None) == clean
    assert not clean or out == whole


def parts(data: bytes) -> None:
    """A message with long lines is refused, or afterwards has none and is the same to Python's reader."""
    message = b"X: y\r\n" + b"\r\n".join(data.translate(None, b"\0\r").split(b"\n")) + b"\r\n"
    message = message.replace(b"LONG", b"l" * 999)
    spool = _spool()
    incoming = Incoming.create(
        spool, received=0.0, user="", peer="", envelope=Envelope("", (Recipient("a@b"),))
    )
    try:
        incoming.write(message)
        encode(incoming)
        incoming.seal(0.0)
        stored = (spool.path / "tmp" / incoming.id).read_bytes()
    except Unencodable:
        return
    finally:
        incoming.discard()
    encoded = stored.partition(b"Spool-Length: ")[2][12:][: incoming.size]
    assert max(map(len, encoded.split(b"\r\n"))) <= MAX_LINE
    assert _seen(email.message_from_bytes(encoded)) == _seen(email.message_from_bytes(message))


def _seen(message: Message) -> object:
    if message.is_multipart():
        return message.get_content_type(), [_seen(part) for part in message.get_payload()]
    return message.get_content_type(), message.get_payload(decode=True)


@cache
def _spool() -> Spool:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="mailer-fuzz-"))
    atexit.register(shutil.rmtree, directory)
    return Spool.open(directory / "spool", create=True)


class _AtOnce(Failures):
    """Holds no answer back: the fuzzer need not wait."""

    def note(self, peer: str, user: str) -> float:
        super().note(peer, user)
        return 0.0


class _Wire(asyncio.Transport):
    """A connection in memory: keeps what the session says."""

    def __init__(self) -> None:
        super().__init__()
        self.said = bytearray()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class _Sessions:
    """A receiver without sockets."""

    def __init__(self) -> None:
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="mailer-fuzz-"))
        spool = Spool.open(self.directory / "spool", create=True)
        self.new = spool.path / "new"
        self.errors: list[str] = []
        committer = Committer(spool)
        committer.start()
        account = single_login("app", "secret")
        self.context = ReceiverContext(
            Settings(require_auth=False, max_message_size=10_000),
            Store(spool, committer, MailLog(time.time, self._note), time.time),
            Accounts(lambda: {"app": account}, now=time.monotonic, random=random.randbytes),
        )
        self.loop = asyncio.new_event_loop()

    def _note(self, level: Level, text: str, told: Fields) -> None:
        if level is Level.ERROR:
            self.errors.append(logfmt(text, told))

    def run(self, data: bytes) -> bytes:
        async def converse() -> bytes:
            failures = _AtOnce(now=lambda: 0.0)
            session = Session(Client("127.0.0.1", local=True), self.context, failures, lambda _: None)
            wire = _Wire()
            session.connection_made(wire)
            draw = random.Random(len(data))
            at = 0
            while at < len(data):
                size = draw.choice((1, 7, 100, 5000))
                session.input.buffer += data[at : at + size]
                session.go_on()
                await asyncio.sleep(0)
                at += size
            session.eof_received()
            await session.ended
            session.connection_lost(None)
            return bytes(wire.said)

        return self.loop.run_until_complete(converse())

    def clear(self) -> None:
        if len(list(self.new.iterdir())) > 500:
            for entry in self.new.iterdir():
                entry.unlink()

    def close(self) -> None:
        shutil.rmtree(self.directory)


_sessions: list[_Sessions] = []


def session(data: bytes) -> None:
    """Whatever a client says, it gets well-formed replies, and nothing in us fails."""
    if not _sessions:
        _sessions.append(_Sessions())
    sessions = _sessions[0]
    said = sessions.run(data)
    assert not sessions.errors, sessions.errors
    assert said.endswith(b"\r\n")
    for line in said.split(b"\r\n")[:-1]:
        assert line[:3].isdigit(), line
        assert line[3:4] in b" -", line
        assert line.decode().isprintable(), line
    sessions.clear()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "path": path,
    "author": author,
    "data": data_reader,
    "chunks": chunks,
    "parts": parts,
    "session": session,
}

_BEGIN = b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"
SEEDS = {
    "path": [
        b"<a@example.com> SIZE=10 BODY=8BITMIME",
        b'<"a b"@[IPv6:::1]> NOTIFY=NEVER ORCPT=rfc822;a+2Bb',
        b"<>",
        "<\u00e4\u200c@z\u0558.example> SMTPUTF8".encode(),
    ],
    "author": [b' "A, B" <a@example.com>, c@example.com (x (y))', b" a b <c@[192.0.2.1]>"],
    "data": [b"..a\r\n..b\r\n\r\n.\r\nQUIT\r\n", b"..\n.\r\n.\r\n", b".." + END],
    "parts": [
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\nLONG\n--B--\n",
        b'Content-Type: multipart/digest; boundary="-=b"\n\n---=b\n\n\nLONG--B \n---=b--\n',
        b"Content-Transfer-Encoding: 8bit\nContent-Type: message/rfc822\n\nA: b\n\nLONG\n",
        b"Content-Transfer-Encoding: binary\n\nLONG\xff =\n.\n",
    ],
    "chunks": [b"..a\r\n.\r\nb", b"..\r", b"..a\0\r\n"],
    "session": [
        _BEGIN + b"DATA\r\nA: b\r\n\r\n.\r\nQUIT\r\n",
        _BEGIN + b"BDAT 4\r\nA\r\nBBDAT 1 LAST\r\n\n",
        b"EHLO x\r\nAUTH PLAIN AGFwcABzZWNyZXQ=\r\nMAIL FROM:<>\r\n",
        b"EHLO x\r\nAUTH LOGIN\r\nYXBw\r\n*\r\nVRFY x\r\nHELP MAIL\r\nRSET\r\nNOOP\r\nSTARTTLS\r\n",
    ],
}
