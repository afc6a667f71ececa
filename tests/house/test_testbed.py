"""The test bed itself: the servers keep what was sent, byte for byte, and the clients really send it."""

import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from testbed.capability import forbidden, ipv6_loopback, network_of_its_own
from testbed.clients import CLIENTS, RefusedError, Submission
from testbed.ports import LOOPBACK, accepts, free_port
from testbed.postfix import Postfix
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.smtp_sink import SmtpSink
from testbed.tools import MissingToolError, program
from testbed.waiting import until

from mailer.config.load import OVERRIDES
from mailer.mail.host_name import is_loopback

MESSAGE = (
    b"From: <app@example.com>\r\n"
    b"To: <bob@example.net>\r\n"
    b"Subject: dots\r\n"
    b"Date: Sun, 22 Nov 2026 21:45:01 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"\r\n"
    b".\r\n..two\r\n.leading\r\n\r\nlast line\r\n"
)
RECIPIENTS = ("bob@example.net", "eve@example.org")


@pytest.mark.parametrize("variable", [*OVERRIDES, "MAILER_CONFIG"])
def test_the_environment_of_the_test_run_does_not_configure_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    relay = Relay(tmp_path)
    undisturbed = relay.mailer("config", "show").stdout
    monkeypatch.setenv(variable, "4711")
    assert relay.mailer("config", "show").stdout == undisturbed
    assert undisturbed


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_submits_the_bytes_it_was_given(client: str, smtp_sink: SmtpSink, tmp_path: Path) -> None:
    CLIENTS[client](smtp_sink.server, Submission("app@example.com", RECIPIENTS, MESSAGE), tmp_path)
    [arrival] = smtp_sink.await_arrivals(1)
    assert arrival.sender == "app@example.com"
    assert arrival.recipients == RECIPIENTS
    assert arrival.message == MESSAGE


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_says_that_it_was_refused(client: str, tmp_path: Path) -> None:
    with SmtpSink(tmp_path / "sink", "-f", "RCPT") as sink:
        with pytest.raises(RefusedError, match="5"):
            CLIENTS[client](sink.server, Submission("app@example.com", RECIPIENTS, MESSAGE), tmp_path)
        assert sink.arrivals() == []


def test_postfix_keeps_each_recipients_copy_byte_for_byte(postfix: Postfix) -> None:
    message = MESSAGE + "Grüße\r\n".encode()
    with smtplib.SMTP(postfix.host, postfix.port) as client:
        client.sendmail("", RECIPIENTS, message, ["BODY=8BITMIME"])
    arrivals = postfix.await_arrivals(2)
    assert sorted(arrival.recipients for arrival in arrivals) == [(recipient,) for recipient in RECIPIENTS]
    assert {arrival.sender for arrival in arrivals} == {""}
    assert {arrival.message for arrival in arrivals} == {message}


@pytest.fixture(scope="module")
def login_required() -> Iterator[Postfix]:
    with Postfix(username="user@primary.test", password="pass word") as server:
        yield server


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_logs_in(client: str, login_required: Postfix, tmp_path: Path) -> None:
    submission = Submission("app@example.com", (f"{client}@example.net",), MESSAGE)
    CLIENTS[client](login_required.server, submission, tmp_path)
    [arrival] = until(
        lambda: [each for each in login_required.arrivals() if each.recipients == submission.recipients],
        "the message in the mailbox",
    )
    assert arrival.message == MESSAGE


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_says_that_its_password_is_wrong(
    client: str, login_required: Postfix, tmp_path: Path
) -> None:
    server = replace(login_required.server, password="guess")
    with pytest.raises(RefusedError, match="535"):
        CLIENTS[client](server, Submission("app@example.com", RECIPIENTS, MESSAGE), tmp_path)


def test_a_postfix_with_a_login_takes_nothing_without_it(login_required: Postfix, tmp_path: Path) -> None:
    server = replace(login_required.server, username="")
    with pytest.raises(RefusedError, match="554"):
        CLIENTS["smtplib"](server, Submission("app@example.com", RECIPIENTS, MESSAGE), tmp_path)


def test_postfix_offers_what_smtp_sink_lacks(postfix: Postfix) -> None:
    with smtplib.SMTP(postfix.host, postfix.port) as client:
        client.ehlo()
        assert {"pipelining", "8bitmime", "smtputf8", "dsn", "size"} <= set(client.esmtp_features)


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_postfix_speaks_tls_with_a_certificate_it_is_given(mode: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    chain = tmp_path / "chain.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(chain))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    settings = {"smtpd_tls_chain_files": str(chain), "smtpd_tls_security_level": "encrypt"}
    if mode == "implicit":
        settings["smtpd_tls_wrappermode"] = "yes"
    with Postfix(settings) as server:
        if mode == "implicit":
            client = smtplib.SMTP_SSL("localhost", server.port, context=context)
        else:
            client = smtplib.SMTP("localhost", server.port)
            client.starttls(context=context)
        with client:
            client.sendmail("app@example.com", "bob@example.net", MESSAGE)
        [arrival] = server.await_arrivals(1)
    assert arrival.message == MESSAGE


def test_postfix_takes_settings_of_one_test() -> None:
    with Postfix({"message_size_limit": "1000"}) as server, smtplib.SMTP(server.host, server.port) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "1000"


def test_smtp_sink_forgets_a_message_that_never_ended(smtp_sink: SmtpSink) -> None:
    with socket.create_connection((smtp_sink.host, smtp_sink.port)) as connection:
        replies = connection.makefile("rb")
        replies.readline()
        connection.sendall(b"HELO client.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
        assert [replies.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        connection.sendall(b"Subject: half\r\n\r\nand no dot\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert replies.read() == b""  # the sink has seen the end
        replies.close()
    assert smtp_sink.arrivals() == []


def test_a_server_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    with SmtpSink(tmp_path / "sink") as sink:
        assert accepts(sink.port)
    assert not accepts(sink.port)


def test_a_server_that_dies_at_start_is_reported_with_its_own_words(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('no such configuration')"]
    process = ServerProcess(argv, tmp_path / "log")
    with pytest.raises(AssertionError, match="no such configuration"):
        process.await_port(free_port())


def test_a_server_that_ignores_sigterm_is_killed_and_reported(tmp_path: Path) -> None:
    port = free_port()
    listening = f"import socket; s = socket.create_server(({LOOPBACK!r}, {port}))"
    argv = [
        sys.executable,
        "-c",
        f"import signal; signal.signal(15, signal.SIG_IGN); {listening}; signal.pause()",
    ]
    process = ServerProcess(argv, tmp_path / "log")
    process.await_port(port)
    with pytest.raises(AssertionError, match="SIGTERM did not end"):
        process.stop(grace=0.1)
    assert not process.running


def test_a_missing_program_is_named_with_what_installs_it() -> None:
    with pytest.raises(MissingToolError, match=r"need no-such-program.*scripts/test"):
        program("no-such-program")


@pytest.mark.parametrize("name", ["mutt", "strace", "faketime", "systemd-analyze", "smtp-source"])
def test_the_other_tools_are_there(name: str) -> None:
    assert subprocess.run(["test", "-x", program(name)], check=False).returncode == 0


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_what_the_machine_forbids_fails_in_ci_and_is_skipped_elsewhere(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="does not let the tests fly: no wings"):
        forbidden("fly", "no wings")


def test_where_there_is_only_loopback_an_address_elsewhere_is_made_and_ours_again_afterwards() -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    with network_of_its_own() as address:
        assert Path("/proc/thread-self/ns/net").readlink() != before
        assert not is_loopback(address)
        with socket.create_server((address, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_where_ipv6_is_switched_off_it_is_on_in_a_network_of_its_own() -> None:
    off = "for i in all lo; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done"
    with network_of_its_own():
        subprocess.run(["sh", "-c", off], check=True)
        with pytest.raises(OSError, match="Cannot assign"):
            socket.create_server(("::1", 0), family=socket.AF_INET6)
        with ipv6_loopback() as address, socket.create_server((address, 0), family=socket.AF_INET6) as server:
            socket.create_connection(server.getsockname()[:2], timeout=5).close()
