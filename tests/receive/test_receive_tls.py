"""Where the receiver listens: TLS on connect and by STARTTLS, Unix sockets, and what changes at SIGHUP."""

import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from inbound.receiving import CLOSED, OPEN, PASSWORD, USER, certificate, issue_certificate, running
from spools.gate import Gate
from testbed.capability import tracer
from testbed.ports import free_port
from testbed.relay import PASSWORD as RELAY_PASSWORD
from testbed.relay import USERNAME as RELAY_USER
from testbed.relay import Relay
from testbed.tools import program
from testbed.waiting import until

from mailer.receive.listen.certificate import Certificate
from mailer.receive.listen.sockets import UnsafeSettingsError
from mailer.receive.settings import Endpoint
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool

MAIL = "Subject: test\r\n\r\nbody\r\n"


def test_implicit_tls_logs_in_and_sends(tmp_path):
    settings = replace(CLOSED, endpoints=(Endpoint(port=0, tls=True),))
    with running(tmp_path, settings, certificate=certificate(tmp_path)) as receiver:
        host, port = receiver.server.addresses[1]
        with smtplib.SMTP_SSL("localhost", port, context=receiver.trust) as client:
            client.login(USER, PASSWORD)
            client.sendmail("a@example.com", ["b@example.net"], MAIL)
            assert "starttls" not in client.esmtp_features
        (entry,) = (receiver.spool / "new").iterdir()
        assert b"with ESMTPSA id " in entry.read_bytes()
    assert host == "127.0.0.1"


@pytest.mark.parametrize(("version", "taken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_1_2_is_the_least(tmp_path, version, taken):
    with running(tmp_path, certificate=certificate(tmp_path)) as receiver:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with smtplib.SMTP(*receiver.address) as client:
            if taken:
                assert client.starttls(context=context)[0] == 220
                assert client.noop()[0] == 503 or client.ehlo()[0] == 250
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    client.starttls(context=context)
                client.close()


def test_openssl_s_client_speaks_starttls_with_us(tmp_path):
    with running(tmp_path, certificate=certificate(tmp_path)) as receiver:
        where = f"127.0.0.1:{receiver.address[1]}"
        done = subprocess.run(
            [program("openssl"), "s_client", "-starttls", "smtp", "-crlf", "-quiet", "-connect", where],
            input=b"EHLO x\nMAIL FROM:<a@example.com>\nRCPT TO:<b@example.net>\nDATA\n"
            b"Subject: x\n\nbody\n.\nquit\n",
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert b"250 2.0.0 Ok: queued as " in done.stdout
        assert receiver.messages() == [b"Subject: x\r\n\r\nbody\r\n"]


def test_a_tls_handshake_that_never_comes_delays_no_other_client(tmp_path):
    settings = replace(OPEN, endpoints=(Endpoint(port=0, tls=True),))
    with (
        running(tmp_path, settings, certificate=certificate(tmp_path)) as receiver,
        socket.create_connection(receiver.server.addresses[1]) as silent,
    ):
        silent.sendall(b"\x16\x03")
        port = receiver.server.addresses[1][1]
        with smtplib.SMTP_SSL("localhost", port, context=receiver.trust) as client:
            assert client.noop()[0] == 250
        with socket.create_connection(receiver.server.addresses[1]) as garbage:
            garbage.sendall(b"EHLO x\r\n" * 10)
            with suppress(ConnectionResetError):
                assert b"250" not in garbage.recv(1000)
    assert not any("failed" in line for line in receiver.log)


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 10
        return self.now


def served(context: ssl.SSLContext, trust: ssl.SSLContext) -> int:
    """Shake hands in memory; return the serial number that the server shows."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return int(client.getpeercert()["serialNumber"], 16)


def test_a_renewed_certificate_is_served_and_a_bad_one_is_not(tmp_path):
    events = []
    chain, key = issue_certificate(tmp_path)
    ours = Certificate(chain, key, now=Clock(), on_event=lambda text, _: events.append(text))
    with running(tmp_path) as receiver:
        trust = receiver.trust
    first = served(ours.context(), trust)
    other = tmp_path / "other"
    other.mkdir()
    new_chain, new_key = issue_certificate(other)
    shutil.copy(new_chain, chain)
    assert served(ours.context(), trust) == first  # the key is still the old one's
    assert "cannot be used" in events[-1]
    shutil.copy(new_key, key)
    assert served(ours.context(), trust) != first
    assert "read again" in events[-1]
    chain.unlink()
    assert served(ours.context(), trust) != first


def test_a_key_with_a_passphrase_is_refused_without_asking_the_terminal(tmp_path):
    chain, key = issue_certificate(tmp_path)
    subprocess.run(
        [
            program("openssl"),
            "pkcs8",
            "-topk8",
            "-in",
            key,
            "-out",
            tmp_path / "locked",
            "-passout",
            "pass:x",
        ],
        check=True,
        capture_output=True,
    )
    with pytest.raises(ssl.SSLError, match="passphrase"):
        Certificate(chain, tmp_path / "locked", now=time.monotonic, on_event=lambda *_: None)


def through(path: Path) -> smtplib.SMTP:
    client = smtplib.SMTP()
    client.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.sock.connect(str(path))
    client.getreply()
    return client


def test_a_unix_socket_takes_logins_and_mail_in_clear(tmp_path):
    path = tmp_path / "smtp.sock"
    settings = replace(CLOSED, endpoints=(Endpoint(path=str(path)),))
    with running(tmp_path, settings) as receiver:
        with through(path) as client:
            client.login(USER, PASSWORD)
            client.sendmail("a@example.com", ["b@example.net"], MAIL)
        (entry,) = (receiver.spool / "new").iterdir()
        assert b"(local socket)" in entry.read_bytes()
        assert b"Spool-Peer: unix\r\n" in entry.read_bytes()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_anything_else_is_not(tmp_path):
    path = tmp_path / "smtp.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    settings = replace(OPEN, endpoints=(Endpoint(path=str(path)),))
    with running(tmp_path, settings):
        other = tmp_path / "other"
        other.mkdir()
        with pytest.raises(OSError, match="in use"), running(other, settings):
            pass
        with through(path) as client:
            assert client.noop()[0] == 250
    path.write_text("precious")
    with pytest.raises(FileExistsError), running(tmp_path, settings):
        pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"endpoints": (Endpoint(port=0, tls=True),)}, "certificate"),
        ({"endpoints": (Endpoint(host="0.0.0.0", port=0),)}, "allowLocalOnly"),
        ({"endpoints": (Endpoint(host="0.0.0.0", port=0),), "local_only": False}, "open relay"),
    ],
)
def test_an_unsafe_listener_does_not_start(tmp_path, change, word):
    with pytest.raises(UnsafeSettingsError, match=word), running(tmp_path, replace(OPEN, **change)):
        pass


@pytest.mark.parametrize("said", [b"EHLO x\r\n", b"", b"\x16\x03\x01\x00\x05\x01"])
def test_a_handshake_that_fails_gives_its_place_to_the_next_client(tmp_path, said):
    settings = replace(CLOSED, max_connections=1, endpoints=(Endpoint(port=0, tls=True),))
    with running(tmp_path, settings, certificate=certificate(tmp_path)) as receiver:
        host, port = receiver.server.addresses[1]
        with socket.create_connection((host, port), timeout=20) as connection:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                assert b"220" not in connection.recv(100)
        until(lambda: greeted(host, port, receiver.trust), "the next client's turn")


def greeted(host: str, port: int, trust: ssl.SSLContext) -> bool:
    with (
        suppress(OSError),
        socket.create_connection((host, port), timeout=20) as connection,
        trust.wrap_socket(connection, server_hostname="localhost") as client,
    ):
        return client.recv(100).startswith(b"220 ")
    return False


@pytest.mark.security_case(41)
def test_who_comes_from_elsewhere_logs_in_within_tls_or_not_at_all(tmp_path, elsewhere):
    """Case 41."""
    settings = replace(CLOSED, local_only=False, host=elsewhere)
    with running(tmp_path, settings, certificate=certificate(tmp_path)) as receiver:
        with smtplib.SMTP(*receiver.address) as client:
            client.ehlo("x")
            assert not client.has_extn("auth")
            for mechanism in ("PLAIN AGEAYg==", "LOGIN", "CRAM-MD5"):
                code, text = client.docmd("AUTH", mechanism)
                assert (code, text[:6]) == (538, b"5.7.11")
            code, text = client.mail("a@example.com")
            assert (code, text[:24]) == (530, b"5.7.0 Say STARTTLS first")
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            client.starttls(context=context)
            client.login(USER, PASSWORD)
            client.sendmail("a@example.com", ["b@example.net"], MAIL)
        assert not [line for line in receiver.log if "login-failed" in line]


def test_a_peer_from_elsewhere_gets_so_many_connections(tmp_path):
    settings = replace(CLOSED, local_only=False, max_connections_per_peer=1)
    with running(tmp_path, settings) as receiver:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            admission = receiver.server._admission
            admission.count("192.0.2.1")
            assert admission.judge(ours, "192.0.2.1", tls=False).code == 421
            assert admission.judge(ours, "192.0.2.2", tls=False) is None
            admission.uncount("192.0.2.1")
            assert admission.judge(ours, "192.0.2.1", tls=False) is None
            for _ in range(5):
                admission.count("127.0.0.1")
            assert admission.judge(ours, "127.0.0.1", tls=False) is None


def test_sighup_changes_the_configuration_and_drops_no_connection(relay: Relay, tmp_path: Path) -> None:
    chain, key = issue_certificate(tmp_path)
    implicit = free_port()
    relay.configure(
        {
            "tls": {"certificatePath": str(chain), "privateKeyPath": str(key)},
            "listeners": [
                {"port": implicit, "tls": "implicit"},
                {"unixSocket": str(tmp_path / "smtp.sock")},
            ],
        }
    )
    with relay.serve() as server, relay.connect() as old:
        old.mail("a@example.com")
        relay.configure({"maxMessageSize": 1000, "defaultPassword": "another good password"})
        server.signal(signal.SIGHUP)
        until(lambda: "the configuration was read again" in server.output(), "the new configuration")
        assert old.rcpt("b@example.net")[0] == 250
        assert old.data(MAIL)[0] == 250
        assert old.mail("a@example.com", ["SIZE=2000"])[0] == 552
        with smtplib.SMTP("127.0.0.1", relay.port) as new:
            new.ehlo()
            assert new.esmtp_features["size"] == "1000"
            with pytest.raises(smtplib.SMTPAuthenticationError):
                new.login(RELAY_USER, RELAY_PASSWORD)
            new.login(RELAY_USER, "another good password")
        relay.config.write_text("{")
        server.signal(signal.SIGHUP)
        until(lambda: "the old one stays" in server.output(), "the refusal")
        assert old.noop()[0] == 250
        with through(tmp_path / "smtp.sock") as local:
            assert local.noop()[0] == 250
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP_SSL("127.0.0.1", implicit, context=context) as client:
            assert client.noop()[0] == 250


def test_a_handshake_that_never_comes_does_not_hold_up_the_end(tmp_path: Path) -> None:
    settings = replace(OPEN, endpoints=(Endpoint(port=0, tls=True),))
    with (
        running(tmp_path, settings, certificate=certificate(tmp_path)) as receiver,
        socket.create_connection(receiver.server.addresses[1], timeout=60) as silent,
        socket.create_connection(receiver.address, timeout=60) as idle,
    ):
        until(lambda: len(receiver.server._sessions) == 2, "both connections")
        before = time.monotonic()
        receiver.stop(5)
        assert time.monotonic() - before < 10  # a handshake may take 30
        assert receiver.server._sessions == set()
        assert b"421 4.3.2" in idle.makefile("rb").read()
        assert silent.recv(100) == b""


def test_a_reload_makes_no_open_relay_of_where_it_listens(relay: Relay, elsewhere: str) -> None:
    """The new configuration listens on loopback alone, and what is bound already listens to everybody."""
    relay.configure({"smtpHost": "0.0.0.0", "security": {"allowLocalOnly": False}})
    with relay.serve() as server, relay.connect() as client:
        relay.configure({"smtpHost": "127.0.0.1", "defaultUsername": "", "defaultPassword": ""})
        relay.configure({"security": {"allowLocalOnly": False, "requireAuth": False}})
        server.signal(signal.SIGHUP)
        until(lambda: "the old one stays" in server.output(), "the refusal")
        assert "open relay" in server.output()
        with smtplib.SMTP(elsewhere, relay.port) as stranger:
            assert stranger.docmd("EHLO x")[0] == 250
            assert stranger.mail("a@example.com")[0] == 530
        relay.configure({"security": {"requireAuth": False}})
        server.signal(signal.SIGHUP)
        until(lambda: "the configuration was read again" in server.output(), "a configuration for this host")
        with pytest.raises(smtplib.SMTPConnectError, match="allowLocalOnly"):
            smtplib.SMTP(elsewhere, relay.port)
        assert client.mail("a@example.com")[0] == 250


def test_a_reload_without_a_certificate_is_refused_while_a_listener_needs_one(
    relay: Relay, tmp_path: Path
) -> None:
    chain, key = issue_certificate(tmp_path)
    implicit = free_port()
    relay.configure(
        {
            "tls": {"certificatePath": str(chain), "privateKeyPath": str(key)},
            "listeners": [{"port": implicit, "tls": "implicit"}],
        }
    )
    with relay.serve() as server, relay.connect():
        relay.configure({"tls": {}, "listeners": []})
        server.signal(signal.SIGHUP)
        until(lambda: "the old one stays" in server.output(), "the refusal")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP_SSL("127.0.0.1", implicit, context=context) as client:
            assert client.noop()[0] == 250


def test_a_sighup_during_the_start_ends_nothing_and_is_obeyed(relay: Relay, tmp_path: Path) -> None:
    """It comes while the key is read for the fourth time: before, the check of the configuration reads it."""
    chain, key = issue_certificate(tmp_path)
    relay.configure({"tls": {"certificatePath": str(chain), "privateKeyPath": str(key)}})
    hangup = ("-P", key.name, "-e", "trace=openat", "-e", "inject=openat:signal=SIGHUP:when=4")
    with relay.starting("serve", under=(tracer(), "-D", "-f", "-qq", "-o", "/dev/null", *hangup)) as server:
        server.await_port(relay.port)
        until(lambda: "the configuration was read again" in server.output(), "the new configuration")


class Counting(Committer):
    """A committer that counts what is handed in."""

    def __init__(self, spool):
        super().__init__(spool)
        self.handed_in = 0

    def commit_and_call(self, change, answer, then=None):
        super().commit_and_call(change, answer, then)
        self.handed_in += 1


def begin_data(client):
    client.ehlo()
    client.mail("a@example.com")
    client.rcpt("b@example.net")
    assert client.docmd("DATA")[0] == 354


def test_data_after_quit_in_tls_does_no_harm(tmp_path):
    """Closing a TLS connection delivers what had come; here that is within the answers to a group.

    How much is delivered when QUIT is served depends on how it came: so there are several clients.
    """
    gate, body = Gate(), b"Subject: x\r\n\r\nbody\r\n.\r\n"
    defects = []
    noop = b"NOOP " + b"x" * 295 + b"\r\n"
    with Spool.open(tmp_path / "spool", create=True) as spool, ExitStack() as clients:
        committer = Counting(spool)
        committer.commit(gate)
        receiver = clients.enter_context(
            running(tmp_path, certificate=certificate(tmp_path), committer=committer)
        )
        clients.callback(gate.opened.set)
        receiver.loop.set_exception_handler(lambda _, context: defects.append(context))
        for sent, count in enumerate((50, 100, 200, 300, 400, 430, 600), 1):
            client = smtplib.SMTP("localhost", receiver.address[1], timeout=60)
            clients.callback(client.close)
            client.starttls(context=receiver.trust)
            begin_data(client)
            client.sock.sendall(body + noop * count + b"QUIT\r\n" + b"junk\r\n" * 60_000)
            until(lambda sent=sent: committer.handed_in == sent, "the message")
        other = smtplib.SMTP(*receiver.address, timeout=60)
        clients.callback(other.close)
        begin_data(other)
        other.sock.sendall(body)
        until(lambda: committer.handed_in == sent + 1, "the message")
        gate.opened.set()
        assert other.getreply()[0] == 250
        receiver.stop(5)
        assert len(receiver.messages()) == sent + 1
    assert not defects
