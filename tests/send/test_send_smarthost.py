"""A smarthost without a login, as on an office network: opportunistic TLS, unless a policy demands more."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from outbound.hostile import Server
from outbound.sending import MESSAGE, TO, forward_to, found, outcomes, queue
from testbed.postfix import Postfix
from testbed.relay import Relay

SUBJECT = b"Subject: hello\r\n"


def self_made(directory: Path) -> Path:
    """A key and a certificate that no authority of ours has signed."""
    chain = directory / "self-made.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(chain))
    return chain


def serving(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_made(directory))
    return context


def through(relay: Relay, port: int, level: str = "may", **provider: Any) -> None:
    smarthost = {"host": "localhost", "port": port, **provider}
    policies = [{"destination": "*", "level": level}]
    relay.configure(forward_to(forwardProviders=[smarthost], tlsPolicies=policies))
    relay.configure({"security": {"logAllEmails": True}})


def sent_copy(relay: Relay, message: str) -> str:
    (copy,) = (relay.spool / "sent").glob(f"*/{message}")
    return copy.read_bytes().decode()


def test_a_real_postfix_with_its_own_certificate_takes_the_mail_over_tls(relay: Relay, tmp_path) -> None:
    settings = {"smtpd_tls_chain_files": str(self_made(tmp_path)), "smtpd_tls_security_level": "encrypt"}
    with Postfix(settings) as server:
        through(relay, server.port)
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        (arrival,) = server.await_arrivals(1)
    assert (arrival.recipients, SUBJECT in arrival.message) == ((TO,), True)
    assert "not verified" in sent_copy(relay, message)


def test_a_smarthost_whose_starttls_says_454_gets_the_mail_in_clear_and_the_story_says_so(
    relay: Relay, tmp_path
) -> None:
    with Server({"starttls": "454 4.7.0 TLS not available"}, tls=serving(tmp_path)) as server:
        through(relay, server.port)
        messages = [queue(relay.spool) for _ in range(3)]
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)] * 3
    assert "none: 454 4.7.0 TLS not available" in relay.mailer("spool", "why", messages[0]).stdout


@pytest.mark.parametrize(
    ("script", "level", "provider"),
    [
        ({"starttls": "454 4.7.0 TLS not available"}, "may", {"username": "u", "password": "secret word"}),
        ({}, "may", {"username": "u", "password": "secret word"}),
        ({}, "verify", {}),
        ({"starttls": "454 4.7.0 TLS not available"}, "encrypt", {}),
    ],
)
def test_neither_a_password_nor_mail_that_must_be_encrypted_goes_by_that(
    relay: Relay, tmp_path, script, level, provider
) -> None:
    with Server(script, tls=serving(tmp_path), auth="PLAIN LOGIN") as server:
        through(relay, server.port, level, **provider)
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        server.wait()
        assert (server.messages, [b"AUTH" in each.received for each in server.sessions]) == ([], [False])
    left = found(relay.spool, message)
    assert left is not None
    assert outcomes(left) == [("deferred", (TO,))]


def test_encrypt_takes_any_certificate_of_a_smarthost_without_a_login(relay: Relay, tmp_path) -> None:
    with Server(tls=serving(tmp_path)) as server:
        through(relay, server.port, "encrypt")
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert [session.tls for session in server.sessions] == ["TLSv1.3"]
        assert server.delivered() == [(TO, MESSAGE)]
