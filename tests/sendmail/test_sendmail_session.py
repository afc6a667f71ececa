"""SMTP on standard input while no receiver runs: each message is one whole drop, or the client hears why."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inbound.smuggling import SEQUENCES

from mailer.sendmail import session
from mailer.sendmail.session import Session
from mailer.spool.directory import Spool
from mailer.spool.drop_file import Drop
from mailer.spool.layout import DROP, DROP_MODE

BEGIN = "EHLO x\r\nMAIL FROM:<a@here.example>\r\nRCPT TO:<root>\r\n"
HEADER = "Date: Sun, 29 Nov 2026 09:00:00 +0000\r\nSubject: x\r\n\r\n"
MAIL = f"{BEGIN}DATA\r\n{HEADER}"
BARE = [each for each in SEQUENCES if each not in {b"\r\n..\r\n", b"\r\n. \r\n", b"\r\n.\r\n"}]


class Place:
    """A drop directory, and sessions for it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / DROP
        self.path.mkdir()
        self.path.chmod(DROP_MODE)

    def serve(self, said: str | bytes, where: Path | None = None) -> list[str]:
        """Return the last line of each reply."""
        given = self.path.with_name("given")
        given.write_bytes(said.encode() if isinstance(said, str) else said)
        heard = self.path.with_name("heard")
        with given.open("rb") as source, heard.open("wb") as sink:
            Session(source.fileno(), sink.fileno(), str(where or self.path)).serve()
        return re.findall(r"(?m)^(\d{3} .*)\r$", heard.read_bytes().decode())

    def left(self) -> list[tuple[list[str], bytes]]:
        """What lies there, in order: commands and message; it is removed."""
        found = []
        for path in sorted(self.path.iterdir()):
            head, _, text = path.read_bytes().partition(b" LAST\r\n")
            first, *commands, size = os.fsdecode(head).split("\r\n")
            assert (first, size) == ("mailer-drop 1", f"BDAT {len(text)}")
            found.append((commands, text))
            path.unlink()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def codes(replies: list[str]) -> str:
    return " ".join(reply[:3] for reply in replies)


def test_each_message_is_a_drop_with_its_own_envelope(place: Place) -> None:
    said = (
        "EHLO x\r\nMAIL FROM:<a@here.example> BODY=8BITMIME RET=HDRS\r\n"
        'RCPT TO:<root> NOTIFY=NEVER\r\nRCPT TO:<"b <c"@d.example>\r\nDATA\r\n'
        f"{HEADER}..\r\n...two\r\n\xfc\r\n.\r\n"
        f"mail from: a@here.example\r\nrcpt to: root\r\nDATA\r\n.{HEADER}.\r\n"
        "NOOP\r\nVRFY root\r\nQUIT\r\nNOOP\r\n"
    )
    replies = place.serve(said)
    assert codes(replies) == "220 250 250 250 250 354 250 250 250 354 250 250 252 221"
    assert replies[6].startswith(
        f"250 2.0.0 Ok: no receiver runs, the next one takes the message in from {place.path}/"
    )
    first = ["MAIL FROM:<a@here.example> BODY=8BITMIME RET=HDRS", "RCPT TO:<root> NOTIFY=NEVER"]
    assert place.left() == [
        ([*first, 'RCPT TO:<"b <c"@d.example>'], f"{HEADER}.\r\n..two\r\n\xfc\r\n".encode()),
        (["MAIL FROM:a@here.example", "RCPT TO:root"], HEADER.encode()),
    ]


def test_a_message_without_a_date_gets_one_of_now(place: Place) -> None:
    place.serve(f"{BEGIN}DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n")
    [(_, text)] = place.left()
    assert re.fullmatch(rb"Date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000\r\nSubject: x\r\n\r\nx\r\n", text)


@pytest.mark.security_case(140)
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_nothing_in_a_message_is_read_as_commands(place: Place, sequence: bytes) -> None:
    inner = "MAIL FROM:<e@x.example>\r\nRCPT TO:<v@x.example>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n"
    place.serve(MAIL.encode() + b"A" + sequence + inner.encode() + b".\r\nQUIT\r\n")
    senders = [commands[0] for commands, _ in place.left()]
    plain = ["MAIL FROM:<a@here.example>", "MAIL FROM:<e@x.example>"]
    assert senders == (plain if sequence == b"\r\n.\r\n" else [] if sequence in BARE else plain[:1])


@pytest.mark.security_case(140)
@pytest.mark.parametrize(
    ("said", "heard", "left"),
    [
        (f"EHLO x\r\nDATA\r\n{BEGIN}DATA\r\n{HEADER}.\r\nQUIT\r\n", "220 250 503", 0),
        (f"{BEGIN}BDAT 99 LAST\r\n{MAIL}.\r\nQUIT\r\n", "220 250 250 250 502", 0),
        (f"{MAIL}no end\r\n", "220 250 250 250 354 421", 0),
        (f"{MAIL}\0\r\n.\r\nQUIT\r\n", "220 250 250 250 354 554 221", 0),
        (f"{MAIL}a\nb\r\n.\r\n{MAIL}.\r\nQUIT\r\n", "220 250 250 250 354 550 250 250 250 354 250 221", 1),
        (f"{BEGIN}{BEGIN}DATA\r\n{HEADER}.\r\n", "220 250 250 250 250 250 250 354 250", 1),
        (f"{BEGIN}RSET\r\nRCPT TO:<b@x>\r\n", "220 250 250 250 250 503", 0),
        (f"{BEGIN}MAIL FROM:<b@x>\r\nDATA x\r\n", "220 250 250 250 503 501", 0),
        ("EHLO x\r\nMAIL FROM:<a> HOLDFOR=60\r\nMAIL FROM:<a> SIZE=1 X\r\n", "220 250 555 555", 0),
        ("EHLO x\r\nMAIL TO:<a>\r\nMAIL FROM:\r\nMAIL FROM:<a\r\n", "220 250 501 501 501", 0),
        ("EHLO x\r\nMAIL FROM:<a> =\r\nMAIL FROM:<a><b>SIZE=1\r\n", "220 250 501 501", 0),
        ("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<j\xf6rg@x>\r\n", "220 250 250 553", 0),
        ("EHLO x\r\nMAIL FROM:<a@@b>\r\nMAIL FROM:<a> SIZE=x\r\nMAIL FROM:<a> RET=full ret=full\r\n",
         "220 250 501 501 501", 0),
        ("EHLO x\nNOOP\r\nNO\0OP\r\nNO\rOP\r\nSTARTTLS\r\n", "220 500 250 500 500 500", 0),
        ("NOOP " + "x" * 3000 + "\r\nNOOP " + "x" * 300_000 + "\r\nNOOP\r\n", "220 500 500 250", 0),
    ],
)  # fmt: skip
def test_what_is_not_taken_is_answered_and_nothing_of_it_is_left(
    place: Place, said: str, heard: str, left: int
) -> None:
    assert codes(place.serve(said)) == heard
    assert len(place.left()) == left


def test_a_recipient_that_no_receiver_takes_is_refused_and_the_others_get_it(place: Place) -> None:
    good = ["a@b.example", '"c>, <"@[192.0.2.1]', "root"]
    bad = [
        "bad@@b",
        "d e@b.example",
        "",
        "f@b..example",
        "g@b.example> NOTIFY=<BOGUS",
        "h@b.example> ORCPT=<h",
    ]
    to = "".join(f"RCPT TO:<{each}>\r\n" for pair in zip(bad, good * 2, strict=True) for each in pair)
    replies = place.serve(f"EHLO x\r\nMAIL FROM:<a@b.example> AUTH=<>  RET=full\r\n{to}DATA\r\n{HEADER}.\r\n")
    assert codes(replies) == "220 250 250" + " 501 250" * 6 + " 354 250"
    [(commands, _)] = place.left()
    assert commands == [
        "MAIL FROM:<a@b.example> AUTH=<> RET=full",
        *(f"RCPT TO:<{each}>" for each in good * 2),
    ]


def test_more_recipients_than_a_receiver_takes_are_refused_and_the_others_get_it(place: Place) -> None:
    to = "".join(f"RCPT TO:<{number}@x.example>\r\n" for number in range(1001))
    replies = place.serve(f"EHLO x\r\nMAIL FROM:<a>\r\n{to}DATA\r\n{HEADER}.\r\n")
    assert codes(replies[-4:]) == "250 452 354 250"
    [(commands, _)] = place.left()
    assert len(commands) == 1001


def test_what_the_directory_does_not_take_gets_a_451(place: Place) -> None:
    place.path.chmod(0o777)
    replies = place.serve(f"{MAIL}.\r\n{MAIL}.\r\nQUIT\r\n")
    assert codes(replies) == "220 250 250 250 354 451 250 250 250 354 451 221"
    assert replies[5] == (
        f"451 4.3.0 no receiver runs, and {place.path} does not take the message: its mode must be 3733"
    )
    assert place.left() == []


def test_a_message_that_is_too_large_is_refused_after_its_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MOST", 100_000)
    lines = f"{'x' * 78}\r\n" * 3000
    replies = place.serve(f"{MAIL}{lines}.\r\n{MAIL}.\r\nQUIT\r\n")
    assert codes(replies) == "220 250 250 250 354 552 250 250 250 354 250 221"
    assert len(place.left()) == 1


@given(
    st.lists(st.sampled_from(["", ".", "..", ".x", "x", "\xfc" * 3, "QUIT"]), max_size=8),
    st.integers(1, 9),
)
def test_a_message_arrives_as_it_was_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], piece: int
) -> None:
    place = Place(tmp_path_factory.mktemp("cut"))
    text = HEADER + "".join(f"{line}\r\n" for line in lines)
    stuffed = "".join(f".{line}" if line.startswith(".") else line for line in text.splitlines(keepends=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_PIECE", piece)
        replies = place.serve(f"{BEGIN}DATA\r\n{stuffed}.\r\nQUIT\r\n")
    assert codes(replies) == "220 250 250 250 354 250 221"
    assert place.left() == [(["MAIL FROM:<a@here.example>", "RCPT TO:<root>"], text.encode())]


def test_a_receiver_reads_what_was_left(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        place = Place(spool_path)
        place.serve(f"{MAIL}hello\r\n.\r\nQUIT\r\n")
        (path,) = place.path.iterdir()
        taken = Drop.lock(spool, path.name)
        assert taken is not None
        assert taken.commands == ("MAIL FROM:<a@here.example>", "RCPT TO:<root>")
        assert b"".join(taken.read()) == f"{HEADER}hello\r\n".encode()
        taken.release()
