"""Mail that should be signed waits when it cannot be, and is never sent unsigned."""

from pathlib import Path

import pytest
from outbound.hostile import Server
from outbound.sending import TO, forward_to, found, queue
from testbed.relay import Relay

pytestmark = pytest.mark.fault_row(25)

DKIM = {"enabled": True, "domain": "example.com"}


def key(relay: Relay) -> Path:
    return relay.directory / "keys" / "example.com" / "mail.private"


def make_key(relay: Relay) -> None:
    done = relay.mailer("dkim", "keygen", "--domain", "example.com")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def server(relay: Relay):
    with Server() as running:
        relay.configure(forward_to(running, dkim=DKIM))
        yield running


def test_what_is_sent_is_signed_on_top_of_the_accepted_bytes(relay: Relay, server: Server) -> None:
    make_key(relay)
    message = queue(relay.spool)
    assert relay.mailer_send("--once").returncode == 0
    (sent,) = server.messages
    assert sent.body.startswith(
        b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=mail;"
    )
    assert sent.body.endswith(b"From: <app@example.com>\r\nSubject: hello\r\n\r\nhello\r\n")
    assert found(relay.spool, message) is None


@pytest.mark.parametrize("fault", ["missing", "damaged", "swapped", "open to others"])
def test_a_key_that_cannot_be_used_holds_the_mail_for_retry(relay: Relay, server: Server, fault: str) -> None:
    make_key(relay)
    kept = key(relay).read_bytes()
    match fault:
        case "missing":
            key(relay).unlink()
        case "damaged":
            key(relay).write_bytes(kept[: len(kept) // 2])
        case "swapped":
            relay.mailer("dkim", "keygen", "--domain", "example.com", "--selector", "other")
            key(relay).write_bytes((key(relay).parent / "other.private").read_bytes())
        case "open to others":
            key(relay).chmod(0o644)
    message = queue(relay.spool)
    first = relay.mailer_send("--once")
    assert server.messages == []
    left = found(relay.spool, message)
    assert left is not None
    if fault == "open to others":
        # The run itself is refused, with the command to type; nothing was touched.
        assert (first.returncode, left.place) == (78, "new")
        assert "chmod" in first.stderr
    else:
        assert (first.returncode, left.place) == (0, "retry")
        assert "mail.private" in relay.mailer("spool", "why", message).stdout
    key(relay).unlink(missing_ok=True)
    key(relay).touch(mode=0o600)
    key(relay).write_bytes(kept)
    relay.mailer("spool", "retry", "--all")
    assert relay.mailer_send("--once").returncode == 0
    assert [sent.recipients for sent in server.messages] == [[TO]]
    assert server.messages[0].body.startswith(b"DKIM-Signature: ")
