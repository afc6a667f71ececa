"""Strangers fill every place and guess without end; the application logs in and its mail is taken.

Security cases 52, 99, 107, 108 and 143. What is asserted are facts and memory, never times.
"""

import asyncio
import contextlib
import resource
import smtplib
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench.flood import MAIL, USER, USER_PASSWORD, deliver, guessing, hold, resident_megabytes
from inbound.receiving import CLOSED, PASSWORD, Receiver, certificate, login, running
from inbound.receiving import USER as LOGIN
from testbed.relay import PASSWORD as RELAY_PASSWORD
from testbed.relay import USERNAME, Relay
from testbed.waiting import until

from mailer.maillog.events import MailLog
from mailer.receive import line_limit
from mailer.receive.peers import source
from mailer.receive.smtp import authenticated
from mailer.receive.smtp.unauthenticated import MAX_IN_TLS
from mailer.receive.users.accounts import single_login
from mailer.receive.users.failures import Failures

HOSTILE = 4096


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert before[1] >= HOSTILE + 200, "the hard limit of descriptors is too low here"
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.security_case(107, 108)
def test_the_application_is_served_in_the_middle_of_a_flood(relay: Relay, many_descriptors: None) -> None:
    done = relay.mailer("user", "add", USER, given=f"{USER_PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    with relay.serve() as server, ExitStack() as held:
        deliver(relay.port, USER, USER_PASSWORD)
        for number in range(HOSTILE):
            held.enter_context(hold(relay.port, number))
        with guessing(relay.port, 100) as made:
            until(lambda: len(made) > 100, "guesses")
            for _ in range(10):
                deliver(relay.port, USERNAME, RELAY_PASSWORD)
                deliver(relay.port, USER, USER_PASSWORD)
            for number in range(HOSTILE // 4):
                held.enter_context(hold(relay.port, number))
            deliver(relay.port, USER, USER_PASSWORD)
            # A guess is not judged once its client has left; how many are depends on the machine.
            until(lambda: failed_logins(relay.spool), "a guess to be judged")
            assert resident_megabytes(server.pid) < 160
    assert len(list((relay.spool / "new").iterdir())) == 22
    assert len(failed_logins(relay.spool)) < 30


def failed_logins(spool: Path) -> list[bytes]:
    ledger = b"".join(path.read_bytes() for path in (spool / "log").iterdir())
    return [line for line in ledger.splitlines() if b"login-failed" in line]


def test_the_guesses_of_a_minute_share_a_line_after_the_first_few() -> None:
    lines: list[Mapping[str, Any]] = []
    log = MailLog(lambda: 0.0, lambda _level, _text, fields: lines.append(fields))
    failures = Failures(lambda: 0.0)

    async def guess() -> None:
        for number in range(100):
            failures.log(log, "192.0.2.1", f"user{number}")
        failures.log(log, "192.0.2.2", "other")
        failures.close(log)

    asyncio.run(guess())
    assert [line.get("more", 0) for line in lines if line["peer"] == "192.0.2.1"] == [0] * 10 + [89]
    assert [line["user"] for line in lines if line["peer"] == "192.0.2.2"] == ["other"]


@pytest.mark.security_case(146)
def test_commands_before_a_login_do_not_fill_the_disk(tmp_path: Path) -> None:
    with running(tmp_path, CLOSED) as receiver:
        for _ in range(3):
            with smtplib.SMTP(*receiver.address, timeout=60) as client:
                client.ehlo()
                for number in range(10):
                    assert client.docmd(f"RCPT TO:<r{number}@example.net>")[0] == 530
        lines = [line for line in receiver.log if "rejected" in line]
        assert len(lines) == line_limit.MAX_LINES
        assert len([line for line in receiver.log if "not logged" in line]) == 1
        with _logged_in(receiver, LOGIN) as client:
            assert [client.docmd("RCPT TO:<b@example.net>")[0] for _ in range(20)] == [503] * 20
        assert len([line for line in receiver.log if "rejected" in line]) == line_limit.MAX_LINES + 20


def test_each_source_has_lines_of_its_own_in_each_minute() -> None:
    now, told = 0.0, list[str]()
    log = MailLog(lambda: 0.0, lambda _level, text, _fields: told.append(text))
    limit = line_limit.LineLimit(lambda: now)
    for _ in range(2):
        assert sum(limit.allows(log, "192.0.2.1") for _ in range(30)) == line_limit.MAX_LINES
        assert limit.allows(log, "unix:1000")
        now += 61
    assert len(told) == 2


@pytest.mark.security_case(99)
def test_the_oldest_connection_without_a_login_gives_way_and_one_with_a_login_does_not(
    tmp_path: Path,
) -> None:
    with running(tmp_path, replace(CLOSED, max_connections=3)) as receiver:
        application = smtplib.SMTP(*receiver.address, timeout=60)
        application.login(LOGIN, PASSWORD)
        idle = [socket.create_connection(receiver.address, timeout=60) for _ in range(4)]
        words = [each.makefile("rb") for each in idle]
        assert all(each.readline().startswith(b"220 ") for each in words)
        for oldest in words[:2]:
            assert oldest.readline().startswith(b"421 4.3.2")
            assert oldest.readline() == b""
        application.sendmail("a@example.com", ["b@example.net"], MAIL)
        for each in (*words, *idle):
            each.close()
        application.quit()
        assert len(receiver.messages()) == 1


@pytest.mark.security_case(143)
@pytest.mark.parametrize("command", ["NOOP", "MAIL FROM:<a@example.com>"], ids=["idle", "begun"])
def test_a_user_who_holds_all_places_makes_room_for_the_others(tmp_path: Path, command: str) -> None:
    others = login(single_login(LOGIN, PASSWORD), single_login("leaky", PASSWORD))
    with (
        running(tmp_path, replace(CLOSED, max_connections=4), others) as receiver,
        smtplib.SMTP(*receiver.address, timeout=60) as application,
        ExitStack() as held,
    ):
        application.login(LOGIN, PASSWORD)
        leaky = [held.enter_context(_logged_in(receiver, "leaky")) for _ in range(3)]
        for each in leaky:
            assert each.docmd(command)[0] == 250
        with _logged_in(receiver, LOGIN):
            assert leaky[0].getreply()[0] == 421
        assert [each.noop()[0] for each in leaky[1:]] == [250, 250]
        application.sendmail("a@example.com", ["b@example.net"], MAIL)
        assert len(receiver.messages()) == 1


@pytest.mark.security_case(143)
def test_of_a_user_who_holds_all_places_with_messages_that_drip_one_is_broken_off(tmp_path: Path) -> None:
    with (
        running(tmp_path, replace(CLOSED, max_connections=3)) as receiver,
        ExitStack() as held,
    ):
        dripping = [held.enter_context(_logged_in(receiver, LOGIN)) for _ in range(3)]
        for each in dripping:
            each.mail("a@example.com")
            each.rcpt("b@example.net")
            assert each.docmd("DATA")[0] == 354
            assert each.sock
            each.sock.sendall(b"Subject: slow\r\n")

        async def make_room(after: float) -> bool:
            sessions = receiver.server._sessions
            return authenticated.make_room(sessions, receiver.loop.time() + after, local=True)

        def room(after: float) -> bool:
            return asyncio.run_coroutine_threadsafe(make_room(after), receiver.loop).result()

        # Under a real load all places may be taken by mail that arrives.
        assert not room(1.0)
        assert room(authenticated.SLOW)
        assert dripping[0].getreply()[0] == 421
        for each in dripping[1:]:
            assert each.sock
            each.sock.sendall(b"\r\n.\r\n")
            assert each.getreply()[0] == 250
        assert len(receiver.messages()) == 2
        assert not receiver.leftovers()


@contextlib.contextmanager
def _logged_in(receiver: Receiver, user: str) -> Iterator[smtplib.SMTP]:
    client = smtplib.SMTP(*receiver.address, timeout=60)
    try:
        client.login(user, PASSWORD)
        yield client
    finally:
        client.close()


def test_those_from_elsewhere_cannot_take_the_places_of_this_host(tmp_path: Path, elsewhere: str) -> None:
    settings = replace(CLOSED, host="", local_only=False, max_connections=32, max_connections_per_peer=1000)
    with running(tmp_path, settings) as receiver, ExitStack() as held:
        port = receiver.address[1]
        for _ in range(40):
            distant = socket.create_connection((elsewhere, port), timeout=60, source_address=(elsewhere, 0))
            assert held.enter_context(distant).recv(100).startswith(b"220")
        until(lambda: len(receiver.server._sessions) == 30, "the older ones to be gone")
        local = [
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in range(32)
        ]
        assert [each.recv(100)[:3] for each in local] == [b"220"] * 32
        until(lambda: len(receiver.server._sessions) == 32, "the distant ones to be gone")
        late = held.enter_context(
            socket.create_connection((elsewhere, port), timeout=60, source_address=(elsewhere, 0))
        )
        assert late.recv(100).startswith(b"421")  # never in place of one on this host


def test_handshakes_without_a_login_are_few_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path, CLOSED, certificate=certificate(tmp_path)) as receiver, ExitStack() as held:
        clients = []
        for _ in range(MAX_IN_TLS + 10):
            client = held.enter_context(socket.create_connection(receiver.address, timeout=60))
            lines = held.enter_context(client.makefile("rb"))
            assert lines.readline().startswith(b"220 ")
            client.sendall(b"EHLO x\r\nSTARTTLS\r\n")
            while not lines.readline().startswith(b"220 2.0.0"):
                pass
            clients.append(client)
        for client in clients[:10]:
            with contextlib.suppress(ConnectionError):
                assert client.recv(1) == b""
        until(lambda: len(receiver.server._sessions) == MAX_IN_TLS, "the older ones to be gone")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("unix", "unix"),
    ],
)
def test_a_network_of_ipv6_is_one_source(peer: str, expected: str) -> None:
    assert source(peer) == expected


def test_guessing_from_many_addresses_of_one_network_is_counted_together() -> None:
    failures = Failures(lambda: 0.0)
    for number in range(30):
        failures.count(f"2001:db8::{number:x}", f"user{number}")
    assert failures.is_blocked("2001:db8::ffff", local=False)
    assert not failures.is_blocked("2001:db8:0:1::1", local=False)
