"""The server's life: who may connect, how it stops, and what it does without disk or descriptors."""

import asyncio
import errno
import hashlib
import os
import smtplib
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from inbound.receiving import CLOSED, OPEN, PASSWORD, USER, running

from mailer.receive.listen.sockets import UnsafeSettingsError
from mailer.receive.smtp.session import Session
from mailer.spool.changes import NotUndone
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming

MAIL = b"Subject: test\r\n\r\nbody\r\n"


def connect(receiver) -> socket.socket:
    connection = socket.create_connection(receiver.address, timeout=20)
    assert connection.recv(100).startswith(b"220 ")
    return connection


def until_data(connection) -> None:
    connection.sendall(b"EHLO c.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    received = b""
    while b"354 " not in received:
        received += connection.recv(4096)


def everything(connection) -> bytes:
    received = b""
    while chunk := connection.recv(4096):
        received += chunk
    return received


class Gate(Committer):
    """A committer whose commits wait until the test opens the gate, as for a slow disk."""

    def __init__(self, spool):
        super().__init__(spool)
        self.asked = threading.Event()
        self.open = threading.Event()

    def commit_and_call(self, change, answer, then=None):
        async def later():
            await asyncio.to_thread(self.open.wait, 20)
            super(Gate, self).commit_and_call(change, answer, then)

        self.asked.set()
        self.later = asyncio.ensure_future(later())


@pytest.fixture
def gated(tmp_path):
    spool = Spool.open(tmp_path / "spool", create=True)
    gate = Gate(spool)
    with running(tmp_path, committer=gate) as receiver:
        yield receiver, gate
        gate.open.set()
    spool.close()


def test_smtplib_logs_in_and_sends_ten_megabytes_byte_for_byte(tmp_path):
    body = b"".join(b"%d .line\r\n.dot\r\n" % n for n in range(600_000))
    with running(tmp_path, CLOSED) as receiver:
        with smtplib.SMTP(*receiver.address) as client:
            client.login(USER, PASSWORD)
            client.sendmail("a@example.com", ["b@example.net"], MAIL + body)
        (message,) = receiver.messages()
        assert hashlib.sha256(message).digest() == hashlib.sha256(MAIL + body).digest()
        (entry,) = (receiver.spool / "new").iterdir()
        assert b"with ESMTPA id " + entry.name.encode() in entry.read_bytes()


def test_250_comes_only_after_the_commit(gated):
    receiver, gate = gated
    connection = connect(receiver)
    until_data(connection)
    connection.sendall(MAIL + b".\r\n")
    assert gate.asked.wait(20)
    with connect(receiver) as other:
        other.sendall(b"NOOP\r\n")
        assert other.recv(100).startswith(b"250 ")
    connection.setblocking(False)
    with pytest.raises(BlockingIOError):
        connection.recv(100)
    connection.setblocking(True)
    gate.open.set()
    assert connection.recv(200).startswith(b"250 2.0.0 Ok: queued as ")
    connection.close()


@pytest.mark.parametrize("how", ["half-close", "reset"])
def test_a_client_that_leaves_while_its_message_is_committed_stops_nothing(gated, how):
    receiver, gate = gated
    connection = connect(receiver)
    until_data(connection)
    connection.sendall(MAIL + b".\r\n")
    assert gate.asked.wait(20)
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    else:
        connection.shutdown(socket.SHUT_WR)
    with connect(receiver) as other:
        other.sendall(b"QUIT\r\n")
        everything(other)
    gate.open.set()
    if how == "half-close":
        assert b"250 2.0.0 Ok: queued as " in everything(connection)
        connection.close()
    receiver.stop(20)
    assert receiver.messages() == [MAIL]
    assert any("event=accepted" in line for line in receiver.log)


def test_stopping_sends_421_to_idle_clients_and_lets_a_message_in_flight_finish(tmp_path):
    with running(tmp_path) as receiver:
        idle, busy = connect(receiver), connect(receiver)
        until_data(busy)
        busy.sendall(b"Subject: half\r\n")
        stopping = threading.Thread(target=receiver.stop, args=(20,))
        stopping.start()
        assert everything(idle).startswith(b"421 4.3.2 ")
        busy.sendall(b"the rest\r\n.\r\nNOOP\r\n")
        answer = everything(busy)
        assert answer.startswith(b"250 2.0.0 Ok: queued as ")
        assert b"\r\n421 4.3.2 " in answer
        stopping.join()
        with pytest.raises(ConnectionRefusedError):
            connect(receiver)
        idle.close()
        busy.close()
        assert receiver.messages() == [b"Subject: half\r\nthe rest\r\n"]


def test_a_message_that_outlasts_the_grace_time_is_dropped(tmp_path):
    with running(tmp_path) as receiver:
        busy = connect(receiver)
        until_data(busy)
        busy.sendall(b"Subject: half\r\n")
        receiver.stop(0)
        assert everything(busy) == b""
        busy.close()
        assert receiver.messages() == receiver.leftovers() == []


def test_one_connection_too_many_gets_a_temporary_refusal(tmp_path):
    with running(tmp_path, replace(OPEN, max_connections=1)) as receiver:
        with connect(receiver) as busy:
            # While a message arrives; one that is idle would give way.
            busy.sendall(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
            said = b""
            while b"\r\n354 " not in said:
                said += busy.recv(1000)
            other = socket.create_connection(receiver.address, timeout=20)
            assert everything(other).startswith(b"421 4.3.2 ")
            other.close()
        assert any("maxConnections" in line for line in receiver.log)


FEW_DESCRIPTORS = """
import resource, sys, pathlib
from inbound.receiving import running
with running(pathlib.Path(sys.argv[1])) as receiver:
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
    print(receiver.address[1], flush=True)
    sys.stdin.readline()
print(*receiver.log, sep="\\n")
"""


@pytest.mark.fault_row(6)
def test_without_descriptors_clients_get_421_and_service_resumes(tmp_path):
    """The accept loop neither spins nor falls silent, and complains once however many clients came."""
    child = subprocess.Popen(
        [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with child:
        address = ("127.0.0.1", int(child.stdout.readline()))
        clients = [socket.create_connection(address, timeout=20) for _ in range(40)]
        banners = [client.recv(100) for client in clients]
        assert banners[0].startswith(b"220 ")
        assert [banner[:10] for banner in banners[-10:]] == [b"421 4.3.2 "] * 10
        for client in clients:
            client.close()
        answer = b"421"
        while answer.startswith(b"421"):  # until the server has noticed that they left
            with socket.create_connection(address, timeout=20) as client:
                answer = client.recv(100)
        assert answer.startswith(b"220 ")
        log = child.communicate("\n")[0]
    assert log.count("connections are refused") == 1


@pytest.mark.parametrize(
    ("code", "reply"),
    [(errno.ENOSPC, b"452 4.3.1 "), (errno.EDQUOT, b"452 4.3.1 "), (errno.EIO, b"451 4.3.0 ")],
)
@pytest.mark.parametrize("step", ["create", "write", "seal", "sync", "move"])
def test_trouble_with_the_disk_is_temporary_and_its_reason_stays_in_the_log(
    tmp_path, monkeypatch, step, code, reply
):
    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code), "/secret/path")

    with running(tmp_path) as receiver:
        monkeypatch.setattr(Incoming, step, fail)
        with connect(receiver) as connection:
            connection.sendall(
                b"EHLO c.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
            )
            received = b""
            while received.count(b"\r\n") < 11:  # eight of EHLO, and three
                received += connection.recv(4096)
            if b"354 " in received:
                connection.sendall(MAIL * 10_000 + b".\r\n")
                received = connection.recv(4096)
            assert b"/secret" not in received
            connection.sendall(b"QUIT\r\n")
            received += everything(connection)
        assert reply in received
        assert receiver.messages() == receiver.leftovers() == []
        assert any(os.strerror(code) in line for line in receiver.log)


def test_a_commit_that_could_not_be_undone_gets_no_reply(tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError(errno.EIO, "input/output error")

    def stuck(*_args):
        raise NotUndone(errno.EIO, "input/output error")

    with running(tmp_path) as receiver:
        monkeypatch.setattr(Incoming, "sync", fail)
        monkeypatch.setattr(Incoming, "undo", stuck)
        with connect(receiver) as connection:
            until_data(connection)
            connection.sendall(MAIL + b".\r\n")
            assert everything(connection) == b""


def test_a_defect_of_ours_ends_one_session_with_421_and_no_detail(tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("inner secret")

    with running(tmp_path) as receiver:
        with connect(receiver) as connection, monkeypatch.context() as patch:
            patch.setattr(Incoming, "create", broken)
            connection.sendall(b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
            answer = everything(connection)
        assert b"421 4.3.0 " in answer
        assert b"secret" not in answer
        assert any("inner secret" in line for line in receiver.log)
        connect(receiver).close()


def test_an_idle_client_gets_421_and_is_closed(tmp_path):
    with running(tmp_path, replace(OPEN, idle_timeout=0.05)) as receiver, connect(receiver) as connection:
        assert everything(connection).startswith(b"421 4.4.2 ")


@pytest.mark.parametrize("limit", [{"stall_timeout": 0.05}, {"data_timeout": 0.05}])
def test_data_that_stalls_is_dropped(tmp_path, limit):
    with running(tmp_path, replace(OPEN, **limit)) as receiver:
        with connect(receiver) as connection:
            until_data(connection)
            connection.sendall(b"half a line")
            assert everything(connection).startswith(b"421 4.4.2 ")
        receiver.stop(20)
        assert receiver.messages() == receiver.leftovers() == []


@pytest.mark.security_case(100)
@pytest.mark.parametrize("command", [b"DATA\r\n", b"BDAT 1000000\r\n"])
def test_data_that_drips_for_ever_is_dropped(tmp_path, command):
    """Case 100: each byte comes in time, and all of them together do not."""
    settings = replace(OPEN, stall_timeout=20, data_timeout=0.3)
    with running(tmp_path, settings) as receiver:
        with connect(receiver) as connection:
            connection.sendall(
                b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n" + command
            )
            connection.settimeout(0.02)
            received = b""
            for _ in range(500):
                with suppress(TimeoutError):
                    received += connection.recv(4096)
                if b"421 " in received:
                    break
                connection.sendall(b"x")
            assert b"\r\n421 4.4.2 " in received
        receiver.stop(20)
        assert receiver.messages() == receiver.leftovers() == []


def test_input_that_is_not_read_yet_stays_with_the_client(gated):
    """While a message is committed the next one may come, but not all of it into memory."""
    receiver, gate = gated
    with connect(receiver) as connection:
        until_data(connection)
        connection.sendall(MAIL + b".\r\n")
        assert gate.asked.wait(20)
        connection.settimeout(1)
        sent = 0
        with suppress(TimeoutError):
            while sent < 100 * 2**20:
                sent += connection.send(b"x" * 2**20)
        # What the kernel holds for both ends, and what we take before the transport pauses.
        assert sent < 30 * 2**20


def test_local_only_listens_on_loopback_whatever_the_host(tmp_path):
    with running(tmp_path, replace(OPEN, host="0.0.0.0")) as receiver:
        assert receiver.address[0] == "127.0.0.1"


@pytest.mark.security_case(71)
def test_an_open_relay_is_refused_at_the_start(tmp_path):
    with (
        pytest.raises(UnsafeSettingsError, match="open relay"),
        running(tmp_path, replace(OPEN, host="0.0.0.0", local_only=False)),
    ):
        pass


def test_a_peer_from_elsewhere_is_refused_under_local_only(tmp_path):
    with running(tmp_path, OPEN) as receiver:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            assert receiver.server._admission.judge(ours, "127.0.0.2", tls=False) is None
            assert receiver.server._admission.judge(ours, "192.0.2.1", tls=False).code == 554
            theirs.send(b"EHLO")
            assert receiver.server._admission.judge(ours, "127.0.0.2", tls=False).code == 554


def test_an_address_in_use_is_an_oserror(tmp_path):
    with running(tmp_path) as receiver:
        other = tmp_path / "other"
        other.mkdir()
        with pytest.raises(OSError, match="in use"), running(other, replace(OPEN, port=receiver.address[1])):
            pass


def test_a_defect_at_the_end_of_a_session_ends_it_alone(tmp_path, monkeypatch):
    def broken(_):
        raise ValueError("broken")

    with running(tmp_path) as receiver, connect(receiver) as one, connect(receiver) as other:
        with monkeypatch.context() as patched:
            patched.setattr(Session, "left", broken)
            one.sendall(b"QUIT\r\n")
            assert everything(one).startswith(b"221 ")
        until_data(other)
        other.sendall(MAIL + b".\r\n")
        assert other.recv(1000).startswith(b"250 ")
        receiver.stop(5)
        assert [line for line in receiver.log if "ValueError: broken" in line]


@pytest.mark.parametrize("command", ["DATA", "BDAT"])
def test_a_client_that_sends_large_pieces_or_meets_a_slow_disk_does_not_stall(tmp_path, monkeypatch, command):
    """Its clock is set forward by more than half of what it may take, after and within each write."""
    pieces, piece = 4, (b"x" * 78 + b"\r\n") * 2048
    written = threading.Semaphore(0)
    with running(tmp_path, replace(OPEN, stall_timeout=1000, data_timeout=2500)) as receiver:
        loop, clock, ahead = receiver.loop, receiver.loop.time, 0
        monkeypatch.setattr(loop, "time", lambda: clock() + ahead)
        write = Incoming.write

        def slow(incoming, data):
            nonlocal ahead
            if len(data) < 128 * 1024:
                write(incoming, data)  # The rest, by the loop itself.
                return
            ahead += 3000
            # The loop looks at its clock before the write has ended.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
            write(incoming, data)
            written.release()

        monkeypatch.setattr(Incoming, "write", slow)
        with connect(receiver) as connection:
            if command == "DATA":
                until_data(connection)
            else:
                size = len(MAIL) + pieces * len(piece)
                connection.sendall(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n")
                connection.sendall(b"BDAT %d LAST\r\n" % size)
            connection.sendall(MAIL)
            for _ in range(pieces):
                connection.sendall(piece)
                assert written.acquire(timeout=60)
                ahead += 600
            if command == "DATA":
                connection.sendall(b".\r\n")
            received = b""
            while b"queued as" not in received and b"421" not in received:
                received += connection.recv(4096)
            assert b"queued as" in received
