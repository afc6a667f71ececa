"""A staging host (`redirectAllTo`): of the envelope that a client gave, nothing leaves it."""

from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import Server
from outbound.sending import forward_to, found, queue
from testbed.relay import Relay

DEV = "dev@staging.example"
SECRETS = (b"boss@example.com", b"customer@", b"blind@", b"NOTIFY", b"ORCPT", b"ENVID", b"RET=", b"secret-id")
NEVER = "550 5.1.1 no such user"


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    return Relay(tmp_path)


def staging(relay: Relay, server: Server, **settings: Any) -> None:
    relay.configure(forward_to(server, redirectAllTo=DEV, bounce="sender", **settings))


def submit(relay: Relay) -> None:
    with relay.connect() as client:
        assert client.has_extn("dsn")
        client.mail("boss@example.com", ["RET=FULL", "ENVID=secret-id"])
        client.rcpt("customer@real.example", ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;customer@real.example"])
        client.rcpt("blind@real.example", ["NOTIFY=SUCCESS"])
        assert client.data(b"From: app@example.com\r\nSubject: x\r\n\r\nx\r\n")[0] == 250


def said_to(server: Server) -> bytes:
    """Every command of every session."""
    return b"\n".join(line for session in server.sessions for line in session.commands)


@pytest.mark.parametrize("verdict", ["250 2.0.0 ok", NEVER])
def test_security_case_110_nothing_of_the_original_envelope_leaves(relay: Relay, verdict: str) -> None:
    """By any command, of the mail or of a notification about it."""
    with Server({"dot": [verdict, "250 2.0.0 ok"]}) as server:
        staging(relay, server)
        with relay.serve():
            submit(relay)
        for _ in range(2):  # the second takes the notification
            assert relay.mailer_send("--once").returncode == 0
        server.wait()
    expected = 2 if verdict is NEVER else 1
    assert [message.recipients for message in server.messages] == [[DEV]] * expected
    assert [message.sender for message in server.messages] == [DEV, ""][:expected]
    assert b"MAIL FROM:<dev@staging.example>" in said_to(server)
    assert not [secret for secret in SECRETS if secret in said_to(server)]


def test_what_was_accepted_before_is_held_and_says_why(relay: Relay) -> None:
    """A spool that was copied from production, or a key that was set with mail in the queue."""
    with Server() as server:
        staging(relay, server, allowedRecipients=["friend.example"])
        real = queue(relay.spool, ["customer@real.example", "me@friend.example"])
        author = queue(relay.spool, ["me@friend.example"], sender="boss@example.com")
        bounce = queue(relay.spool, ["boss@example.com"], sender="")
        fine = queue(relay.spool, ["me@friend.example"], sender="you@friend.example")
        planned = relay.mailer_send("--dry-run").stdout
        assert planned.count("would be held") == 3
        assert relay.mailer_send("--once").returncode == 0
        server.wait()
        assert [message.recipients for message in server.messages] == [["me@friend.example"]]
        assert found(relay.spool, fine) is None
        for message_id, who in (
            (real, "customer@real.example"),
            (author, "boss@example.com"),
            (bounce, "boss@"),
        ):
            held = found(relay.spool, message_id)
            assert held is not None
            assert held.place == "hold"
            assert who in held.events[-1]["reason"]
        assert relay.mailer("spool", "release", real).returncode == 0
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.messages) == 1
        relay.configure({"redirectAllTo": "", "allowedRecipients": []})
        assert relay.mailer("spool", "release", real).returncode == 0
        assert relay.mailer_send("--once").returncode == 0
    assert server.messages[-1].recipients == ["customer@real.example", "me@friend.example"]
