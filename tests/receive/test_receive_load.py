"""Many clients at once, and hostile streams through a whole server: what must not grow does not grow."""

import os
import resource
import smtplib
import socket
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from inbound.receiving import OPEN, running
from testbed.capability import forbidden
from testbed.proc import opened, peak_megabytes
from testbed.relay import Relay
from testbed.tools import program
from testbed.waiting import until

from mailer.config.receiving import LongLines
from mailer.receive.content.data import DataReader
from mailer.send.smtp.body import DotStuffer

IDLE, SLOW = 2000, 100
CONNECTS = 20_000
FIRST, END = b"X: y\r\n\r\n", b"\r\n.\r\n"
MAIL = "Subject: test\r\n\r\nbody\r\n"


@pytest.fixture
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < IDLE + SLOW + 200:
        forbidden(
            f"open {IDLE + SLOW + 200:,} descriptors in one process", f"the hard limit is {before[1]:,}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident_megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def hello(relay: Relay) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", relay.port), timeout=60)
    assert connection.recv(100).startswith(b"220 ")
    return connection


@pytest.mark.security_case(99)
def test_a_client_is_served_beside_idle_and_slow_ones(relay: Relay, many_descriptors) -> None:
    """Case 99."""
    relay.configure({"security": {"requireAuth": False}, "defaultUsername": "", "defaultPassword": ""})
    with relay.serve() as server, ExitStack() as held:
        for _ in range(IDLE):
            held.enter_context(hello(relay))
        slow = [held.enter_context(hello(relay)) for _ in range(SLOW)]
        for connection in slow:
            connection.sendall(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
            connection.sendall(b"Subject: slow\r\n\r\n")
        for number in range(10):
            for connection in slow:
                connection.sendall(b"x")
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=60) as client:
                client.sendmail("a@example.com", ["b@example.net"], f"Subject: {number}\r\n\r\n")
        assert resident_megabytes(server.pid) < 150
        for connection in slow:
            connection.sendall(b"\r\n.\r\n")
        until(lambda: len(list((relay.spool / "new").iterdir())) == 10 + SLOW, "the slow ones' mail")


def test_a_hundred_senders_of_large_messages_at_once_stay_within_150_mb(relay: Relay) -> None:
    """Of 4 MB each; MAILER_LARGE_MEGABYTES=20 makes it 2 GB in all."""
    megabytes = int(os.environ.get("MAILER_LARGE_MEGABYTES", "4"))
    relay.configure({"security": {"requireAuth": False}, "defaultUsername": "", "defaultPassword": ""})
    piece = b"0123456789abcde\r\n" * (2**20 // 17)
    with relay.serve() as server, ExitStack() as held:
        senders = [held.enter_context(hello(relay)) for _ in range(SLOW)]
        for connection in senders:
            connection.sendall(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
            connection.sendall(b"Subject: large\r\n\r\n")
        for _ in range(megabytes):
            for connection in senders:
                connection.sendall(piece)
        for connection in senders:
            connection.sendall(b".\r\n")
        until(lambda: len(list((relay.spool / "new").iterdir())) == SLOW, "the messages", patience=300)
        assert peak_megabytes(server.pid) < 150


@pytest.mark.security_case(101)
def test_twenty_thousand_connects_leave_the_descriptors_where_they_were(relay: Relay) -> None:
    """Case 101."""
    with relay.serve() as server:
        with relay.connect() as client:
            client.sendmail("a@example.com", ["b@example.net"], MAIL)
        before = len(opened(server.pid))
        for number in range(CONNECTS):
            with socket.create_connection(("127.0.0.1", relay.port), timeout=60) as connection:
                if number % 10 == 0:
                    connection.recv(100)
                if number % 100 == 0:
                    connection.sendall(b"EHLO x\r\nQUIT\r\n")
                if number % 7 == 0:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: len(opened(server.pid)) <= before, "the last connection to be gone")
        with relay.connect() as client:
            assert client.noop()[0] == 250


@pytest.mark.security_case(28, 32)
def test_every_string_of_six_hostile_bytes_is_one_message_at_most_in_and_out(tmp_path):
    """All 15,625 over CR, LF, dot, NUL and a, in one session; MAILER_HOSTILE_LENGTH=8 makes it 390,625."""
    length = int(os.environ.get("MAILER_HOSTILE_LENGTH", "6"))
    settings = replace(OPEN, max_errors=10**9, max_idle_commands=10**9)
    with running(tmp_path, settings) as receiver:
        expected = set()
        texts = [bytes(characters) for characters in product(b"\r\n.\0a", repeat=length)]
        # What follows an end inside is read as commands, and too many unknown ones end a session.
        ending = [text for text in texts if ends_early(text)]
        for group in [[text for text in texts if not ends_early(text)], *([text] for text in ending)]:
            with socket.create_connection(receiver.address, timeout=60) as connection:
                replies = connection.makefile("rb")
                replies.readline()
                connection.sendall(b"EHLO x\r\n")
                while replies.readline()[3:4] != b" ":
                    pass
                for text in group:
                    expected |= send_one(connection, replies, text)
                replies.close()
        receiver.stop(5)
        messages = receiver.messages()
    assert set(messages) == expected
    for message in messages:
        assert b"\0" not in message
        assert sent_on(message) == message
    # Also what was never accepted: a spool file can be written by hand.
    for text in texts:
        assert len(sent_on(FIRST + text)) >= len(FIRST)


def sent_on(message: bytes) -> bytes:
    """Put a message on the wire as the sender does; return what a strict reader makes of it, all in one."""
    stuffer = DotStuffer()
    wire = stuffer.encode(message[:9]) + stuffer.encode(message[9:]) + stuffer.end()
    assert wire.count(b"\r\n") == wire.count(b"\n") == wire.count(b"\r")
    # A NUL passes: it ends no line, and the next hop may refuse it.
    reader = DataReader(max_size=10**6, long_lines=LongLines.PASS)
    read = reader.feed(wire.replace(b"\0", b"0"))
    assert (reader.done, reader.fault, reader.rest) == (True, None, b"")
    return read


def ends_early(text: bytes) -> bool:
    return (FIRST + text + END).find(END) < len(FIRST + text)


def send_one(connection: socket.socket, replies, text: bytes) -> set[bytes]:
    """Send one hostile text as a message; return the message that it must make, if it makes one."""
    connection.sendall(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    assert [replies.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
    stream = FIRST + text + END
    end = stream.find(END)
    connection.sendall(stream + b"NOOP end\r\n")
    message, rest = stream[: end + 2], stream[end + 5 :]
    reply = replies.readline()
    taken = not set(message.replace(b"\r\n", b"")) & set(b"\r\n\0")
    assert reply[:3] in ({b"250"} if taken else {b"550", b"554"}), (text, reply)
    answers = [replies.readline() for _ in range(rest.count(b"\n") + 1)]
    assert answers[-1].startswith(b"250 2.0.0 Ok")
    assert all(answer.startswith(b"500 ") for answer in answers[:-1])
    if not reply.startswith(b"250"):
        return set()
    return {b"".join(line.removeprefix(b".") for line in message.splitlines(keepends=True))}


@pytest.mark.fault_row(23)
def test_a_disk_that_takes_seconds_to_sync_delays_the_reply_and_no_other_client(relay: Relay) -> None:
    assert relay.mailer("send", "--once").returncode == 0  # which makes the spool
    slow = (
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync",
        "-e",
        "inject=fsync:delay_exit=5000000",
    )
    with relay.serve(under=(program("strace"), *slow)), relay.connect() as waiting, relay.connect() as other:
        waiting.mail("a@example.com")
        waiting.rcpt("b@example.net")
        waiting.docmd("DATA")
        waiting.send(MAIL.encode() + b".\r\n")
        waiting.sock.setblocking(False)
        for _ in range(20):
            assert other.noop()[0] == 250
            with pytest.raises(BlockingIOError):
                waiting.sock.recv(1, socket.MSG_PEEK)
        waiting.sock.settimeout(60)
        assert waiting.getreply()[0] == 250
