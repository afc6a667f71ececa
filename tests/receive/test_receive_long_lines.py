"""Lines over 998 octets as quoted-printable: what a reader sees afterwards is what was submitted.

The refusals are `dialogues/34-*` and `76-*`; the deaths in between are in `test_receive_kill`.
"""

import email
import quopri
import re
import smtplib
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.message import Message
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inbound.receiving import OPEN, running
from spools.strace import attach
from testbed.mutt import Mutt
from testbed.proc import opened, peak_megabytes
from testbed.relay import USERNAME, Relay

from mailer.config.receiving import LongLines
from mailer.mail.envelope import Envelope, Recipient
from mailer.receive.content import long_lines, mime_header
from mailer.receive.content.mime_header import Unencodable
from mailer.receive.content.quoted_printable import QuotedPrintable
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming

ENCODE = replace(OPEN, long_lines=LongLines.QUOTED_PRINTABLE)
TO = "bob@example.net"
LONG = "Schöne Grüße. = " * 80 + "Ende "

# Words that a coder of quoted-printable, or a reader of MIME, may trip over.
words = st.sampled_from(
    [
        *(b"\r\n", b" ", b"\t", b".", b"..", b"-", b"--", b"=", b"=3D", b"_", b"From ", b"\x01", b"\xff"),
        *(
            "ü".encode(),
            b"x",
            b"a" * 74,
            b"a" * 75,
            b"a" * 76,
            b"b" * 1000,
            b"--one",
            b"--one--",
            b"word " * 250,
        ),
    ]
)
texts = st.lists(words, max_size=12).map(b"".join)


@given(texts, st.lists(st.integers(1, 200), max_size=30))
def test_a_text_is_the_same_when_it_is_decoded(text, sizes):
    check_coded(text, list(cut(text, sizes)))


def test_a_line_of_any_length_near_the_limit_is_broken_in_time():
    for length, last, end in product(range(66, 80), (b"", b" ", b"\t", b"=", b"--"), (b"", b"\r\n")):
        line = b"x" * length + last + end
        check_coded(line, [line])
        check_coded(line + b"more\r\n", [line, b"more\r\n"])
        check_coded(b"--" + line, [b"--" + line])
        check_coded(b"--" + line + b"more\r\n", [b"--" + line, b"more\r\n"])


def check_coded(text: bytes, pieces: list[bytes]) -> None:
    coder = QuotedPrintable()
    encoded = b"".join(map(coder.encode, pieces))
    assert quopri.decodestring(encoded) == text
    lines = encoded.split(b"\r\n")
    assert b"".join(lines).translate(None, bytes(range(32, 127)) + b"\t") == b""
    for line in lines:
        assert len(line) <= 76
        assert not line.startswith(b"--"), "it could be read as a boundary"
        assert not line.endswith((b" ", b"\t")), "a relay may cut it off"


def cut(text: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut anywhere but between CR and LF."""
    places, at = {0, len(text)}, 0
    for size in sizes:
        at += size
        if text[at - 1 : at + 1] != b"\r\n":
            places.add(min(at, len(text)))
    for start, end in pairwise(sorted(places)):
        yield text[start:end]


TYPES = [b"", b"Content-Type: text/plain\r\n", b"Content-Type: text/html; charset=utf-8\r\n"]
ENCODINGS = [b"", b"Content-Transfer-Encoding: 8bit\r\n", b"Content-Transfer-Encoding:\r\n\tBINARY\r\n"]
VERSIONS = [b"", b"MIME-Version: 1.0\r\n"]
leaves = st.builds(
    lambda kind, encoding, text: kind + encoding + b"\r\n" + text,
    st.sampled_from(TYPES),
    st.sampled_from(ENCODINGS),
    texts,
)


def multipart(kind: bytes, boundary: bytes, parts: list[bytes], *, closed: bool) -> bytes:
    head = b'Content-Type: multipart/%s;\r\n\tboundary="%s"\r\n\r\n' % (kind, boundary)
    between = b"\r\n--" + boundary + b"\r\n"
    return (
        head + b"nobody sees this" + between + between.join(parts) + (b"\r\n--%s--\r\n" % boundary) * closed
    )


def trees(boundaries: list[bytes]) -> st.SearchStrategy[bytes]:
    """Entities whose parts have these boundaries, the outermost first."""
    if not boundaries:
        return leaves
    inside = st.one_of(leaves, trees(boundaries[1:]))
    return st.builds(
        partial(multipart, boundary=boundaries[0]),
        kind=st.sampled_from([b"mixed", b"alternative", b"digest"]),
        parts=st.lists(inside, min_size=1, max_size=3),
        closed=st.booleans(),
    )


messages = st.builds(
    lambda version, entity: b"Subject: x\r\n" + version + entity + b"\r\n",
    st.sampled_from(VERSIONS),
    st.one_of(leaves, trees([b"one", b"two", b"=_three"])),
)


@settings(max_examples=300)
@given(messages)
def test_every_part_is_the_same_to_pythons_reader(tmp_path_factory, message):
    """Or the message is refused, where readers could differ."""
    try:
        encoded = encode(message, tmp_path_factory.getbasetemp() / "parts")
    except Unencodable:
        return
    assert not re.search(rb"[^\r\n]{999}", encoded)
    assert seen(email.message_from_bytes(encoded)) == seen(email.message_from_bytes(message))
    if not re.search(rb"[^\r\n]{999}", message):
        assert encoded == message


def encode(message: bytes, directory: Path, meanwhile: Callable[[Incoming], None] | None = None) -> bytes:
    with Spool.open(directory, create=True) as spool:
        envelope = Envelope(sender="", recipients=(Recipient(TO),))
        incoming = Incoming.create(spool, received=0.0, user="", peer="", envelope=envelope)
        try:
            incoming.write(message)
            if meanwhile:
                meanwhile(incoming)
            long_lines.encode(incoming)
            incoming.seal(0.0)
            stored = (directory / "tmp" / incoming.id).read_bytes()
            assert sorted(path.name for path in (directory / "tmp").iterdir()) == [incoming.id]
        finally:
            incoming.discard()
    encoded = stored.partition(b"Spool-Length: ")[2][12 : 12 + incoming.size]
    assert encoded.count(b"\r\n") == encoded.count(b"\n") == encoded.count(b"\r")
    return encoded


@pytest.mark.parametrize("shift", range(-3, 4))
def test_a_line_may_end_where_a_block_does(shift, tmp_path):
    """A message is read back in blocks of 128 KiB, from its start and from its body's."""
    head = b"Subject: x\r\n\r\n"
    for start in (0, len(head)):
        text = b"y" * (128 * 1024 + shift - start) + b"\r\nlast\r\n"
        encoded = encode(head + text, tmp_path / "spool")
        assert email.message_from_bytes(encoded).get_payload(decode=True) == text


def test_what_is_read_back_wrong_is_not_accepted(tmp_path):
    """After a failed write-back the kernel reads what was there before."""
    directory = tmp_path / "spool"

    def rot(incoming: Incoming) -> None:
        with (directory / "tmp" / incoming.id).open("r+b") as file:
            file.seek(100_000)
            file.write(b"?")

    with pytest.raises(OSError, match="cannot be read back"):
        encode(b"Subject: x\r\n\r\n" + b"y" * 200_000, directory, meanwhile=rot)
    assert list((directory / "tmp").iterdir()) == []


def seen(message: Message) -> object:
    """What a reader shows: types, texts as octets, and what stands around parts."""
    if message.is_multipart():
        parts = [seen(part) for part in message.get_payload()]
        return message.get_content_type(), parts, message.preamble, message.epilogue
    return message.get_content_type(), message.get_payload(decode=True)


def test_mutt_shows_what_was_submitted(relay: Relay, tmp_path: Path) -> None:
    relay.configure({"longLines": "quotedPrintable"})
    head = f"From: {USERNAME}\r\nTo: {TO}\r\n"
    plain = f"{head}Subject: plain\r\n\r\n{LONG}\r\n.\r\n--x \r\n"
    attached = (
        f"{head}Subject: attached\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
        f"--x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nshort = short\r\n"
        f"--x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{LONG}\r\n--x--\r\n"
    )
    with relay.serve(), relay.connect() as client:
        for message in (plain, attached):
            client.sendmail(USERNAME, [TO], message.encode(), ["BODY=8BITMIME"])
    assert relay.mailer_send("--once").returncode == 0
    assert [b"short = short\r\n" in one or b"short = short\n" in one for one in relay.delivered()].count(
        True
    ) == 1
    with Mutt(relay.spool / "local", tmp_path, "set pipe_decode", "set charset=utf-8") as mutt:
        mutt.await_subjects("plain", "attached")
        read = mutt.read_all().decode()
        assert mutt.quit() == 0
    assert f"\n\n{LONG}\n.\n--x \n" in read
    assert read.count(LONG) == 2


def test_a_line_of_20_mb_is_encoded_in_little_memory(tmp_path: Path, relay: Relay) -> None:
    relay.configure({"longLines": "quotedPrintable"})
    line = b"0123456789 =\xff" * (20 * 2**20 // 13)
    with relay.serve() as server, relay.connect() as client:
        client.sendmail(USERNAME, [TO], b"Subject: warm\r\n\r\n" + b"x" * 1000 + b"\r\n")
        before = peak_megabytes(server.pid)
        client.sendmail(USERNAME, [TO], b"Subject: x\r\n\r\n" + line + b"\r\n")
        assert peak_megabytes(server.pid) - before < 10
    [stored] = [path.read_bytes() for path in (relay.spool / "new").iterdir() if path.stat().st_size > 2**20]
    body = stored.partition(b"quoted-printable\r\n\r\n")[2].rpartition(b'{"at"')[0]
    assert quopri.decodestring(body) == line + b"\r\n"
    assert b"charset=unknown-8bit\r\n" in stored


@pytest.mark.parametrize(
    ("call", "error", "reply"),
    [("pread64", "EIO", "451 4.3.0"), ("unlinkat", "EIO", "451 4.3.0"), ("pwrite64", "ENOSPC", "452 4.3.1")],
)
def test_a_disk_that_fails_in_between_makes_the_client_come_back(
    call: str, error: str, reply: str, relay: Relay, tmp_path: Path
) -> None:
    relay.configure({"longLines": "quotedPrintable"})
    message = b"Subject: x\r\n\r\n" + b"x" * 300_000 + b"\r\n"
    with relay.serve() as server:
        with relay.connect() as client:
            client.sendmail(USERNAME, [TO], b"the modules are loaded now\r\n")
            envelope(client)
            watcher = attach(
                server.pid, tmp_path / "log", inject=(f"{call}:error={error}:when=1",), trace=call
            )
            code, text = client.data(message)
        assert f"{code} {text.decode()}".startswith(reply)
        # The descriptor that is left would show as a file that has no name.
        assert not [path for path in opened(server.pid) if "/spool/tmp/" in path]
        server.stop()
        watcher.communicate()
    assert len(list((relay.spool / "new").iterdir())) == 1


def envelope(client: smtplib.SMTP) -> None:
    client.mail(USERNAME)
    client.rcpt(TO)


def test_chunks_are_encoded_too(tmp_path):
    text = b"Subject: x\r\n\r\n" + b"x" * 1200
    with running(tmp_path, ENCODE) as receiver:
        with smtplib.SMTP(*receiver.address) as client:
            client.ehlo("x")
            envelope(client)
            client.send(b"BDAT %d\r\n" % len(text) + text)
            assert client.getreply()[0] == 250
            client.send(b"BDAT 2 LAST\r\n..")
            assert client.getreply()[0] == 250
        [message] = receiver.messages()
    head, _, body = message.partition(b"\r\n\r\n")
    assert head.endswith(b"\r\nContent-Transfer-Encoding: quoted-printable")
    assert quopri.decodestring(body) == b"x" * 1200 + b"..\r\n"


@pytest.mark.parametrize(
    ("head", "whole"),
    [
        (b"", True),
        (b"A: b\r\n", True),
        (b"A: b\r\n c\r\n\td\r\nE:\r\n", True),
        (b"A:\n", True),
        (b" c\r\nA: b\r\n", False),
        (b"A: b", False),
        (b"A: b\r\nno field\r\n", False),
        (b"A: b\r\n\r\nC: d\r\n", False),
        (b"A: b\r\n: c\r\n", False),
        (b"A b: c\r\n", False),
        (b"A: b\r\nlast", False),
        (b"\n", False),
    ],
)
def test_a_header_is_fields_and_their_continuations(head: bytes, *, whole: bool) -> None:
    if whole:
        mime_header.read(head)
    else:
        with pytest.raises(Unencodable, match="not a field"):
            mime_header.read(head)
