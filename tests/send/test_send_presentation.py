"""Providers that take mail in another form: `sender`, `rewriteFrom`, `dkim` and `bounceFrom` of each."""

from collections.abc import Callable, Iterator
from typing import Any

import dkim
import pytest
from outbound.bounces import read
from outbound.hostile import Message, Server, Session, per_address
from outbound.sending import MESSAGE, SENDER, TO, found, outcomes, queue
from spools.walk import walk
from testbed.relay import Relay

from mailer.config.receiving import RewriteFrom
from mailer.mail.envelope import Envelope, Recipient
from mailer.send.presentation import Presentation

OURS = "relay@example.com"
BOUNCES = "bounces@example.com"
NO_SUCH_USER = "550 5.1.1 no such user"
NOT_OWNED = "553 5.7.1 Sender address rejected: not owned by user"
AUTOMATIC = b"Auto-Submitted: auto-replied\r\n"


def only(sender: str, refusal: str = NOT_OWNED) -> dict[str, Any]:
    """A server that takes mail from one address alone."""
    return {"mail": per_address({sender: None}, default=refusal)}


def but_not(sender: str) -> Callable[[Session, bytes], str | None]:
    def judge(_session: Session, line: bytes) -> str | None:
        return "550 5.7.1 we take no mail from there" if f"<{sender}>".encode() in line else None

    return judge


def through(relay: Relay, *providers: tuple[Server, dict[str, Any]], **settings: Any) -> None:
    listed = [{"host": "127.0.0.1", "port": server.port, **keys} for server, keys in providers]
    relay.configure(
        {"forwardSMTP": True, "forwardProviders": listed, "hostname": "relay.example.com"} | settings
    )


def run(relay: Relay) -> None:
    done = relay.mailer_send("--once")
    assert done.returncode == 0, done.stderr


def why(relay: Relay, message: str) -> str:
    return relay.mailer("spool", "why", message).stdout


def with_key(relay: Relay) -> bytes:
    """Make the key of example.com, and return its record."""
    assert relay.mailer("dkim", "keygen", "--domain", "example.com").returncode == 0
    return (relay.directory / "keys" / "example.com" / "mail.txt").read_bytes()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def one(server: Server) -> Message:
    (message,) = server.messages
    return message


# The sender, and From.


def test_a_provider_that_takes_one_sender_alone_gets_all_mail_from_it(relay: Relay) -> None:
    with Server(only(OURS)) as server:
        through(relay, (server, {"sender": OURS}))
        queue(relay.spool)
        run(relay)
        sent = one(server)
    assert (sent.sender, sent.accepted, sent.body) == (OURS, True, MESSAGE)


def test_each_provider_gets_its_own_form(relay: Relay) -> None:
    with Server({"rcpt": "550 5.7.1 not for this account"}) as first, Server() as second:
        through(relay, (first, {"sender": OURS, "rewriteFrom": "replace"}), (second, {}))
        message = queue(relay.spool)
        run(relay)
        first.wait()
        assert f"MAIL FROM:<{OURS}> ".encode() in bytes(first.sessions[0].received)
        assert (one(second).sender, one(second).body) == (SENDER, MESSAGE)
    assert found(relay.spool, message) is None


def test_a_bounce_goes_to_who_sent_the_mail_whatever_the_provider_was_told(relay: Relay) -> None:
    with Server({"rcpt": per_address({TO: NO_SUCH_USER})}) as server:
        through(relay, (server, {"sender": OURS}), bounce="sender")
        queue(relay.spool)
        run(relay)
        assert (one(server).sender, one(server).recipients) == ("", [SENDER])


SHOWN = (
    (
        "replace",
        b"From: App <app@example.org>\r\nSubject: x\r\n",
        b"Subject: x\r\nFrom: App <relay@example.com>\r\n",
    ),
    (
        "replaceAndReplyTo",
        b"Subject: x\r\nFrom: App <app@example.org>\r\n",
        b"Subject: x\r\nFrom: App <relay@example.com>\r\nReply-To: App <app@example.org>\r\n",
    ),
    (
        "replaceAndReplyTo",
        b"Reply-To: me@example.org\r\nFrom: app@example.org\r\n",
        b"Reply-To: me@example.org\r\nFrom: relay@example.com\r\n",
    ),
    (
        "replaceAndReplyTo",
        b"Reply-To: \r\nFrom: app@example.org\r\nReply-to:\r\n \r\n",
        b"From: relay@example.com\r\nReply-To: app@example.org\r\n",
    ),
    (
        "replaceAndReplyTo",
        b"Reply-To:\r\n me@example.org\r\nFrom: app@example.org\r\n",
        b"Reply-To:\r\n me@example.org\r\nFrom: relay@example.com\r\n",
    ),
    # Nothing to reply to.
    ("replaceAndReplyTo", b"Subject: x\r\n", b"Subject: x\r\nFrom: relay@example.com\r\n"),
    ("replaceAndReplyTo", b"From: root (Cron)\r\n", b"From: relay@example.com\r\n"),
    # A header that is folded, odd, empty, or all there is.
    (
        "replace",
        b'From: "Me,\r\n too" <a@b.example>\r\nX\r\n',
        b'X\r\nFrom: "Me, too" <relay@example.com>\r\n',
    ),
    ("replace", b"", b"From: relay@example.com\r\n"),
)
"""A kind of `rewriteFrom`, a header, and the same as the provider is shown it."""


@pytest.mark.parametrize("how", ["replace", "replaceAndReplyTo"])
def test_from_is_the_providers_address_and_nothing_else_changes(
    relay: Relay, server: Server, how: str
) -> None:
    through(relay, (server, {"sender": OURS, "rewriteFrom": how}))
    expected = []
    for body in (b"\r\nFrom: not a field\r\n", b""):
        for _, header, shown in (case for case in SHOWN if case[0] == how):
            queue(relay.spool, [f"{len(expected)}@example.net"], header + body)
            expected.append(shown + body)
    run(relay)
    sent = {int(to.partition("@")[0]): body for to, body in server.delivered()}
    assert [sent[number] for number in range(len(sent))] == expected


def test_a_large_message_is_rewritten_and_signed_as_a_small_one(relay: Relay, server: Server) -> None:
    record = with_key(relay)
    terms = {"sender": OURS, "rewriteFrom": "replaceAndReplyTo"}
    through(relay, (server, terms), dkim={"enabled": True, "domain": "example.com"})
    body = b"\r\n" + b"0123456789\r\n" * 50_000
    queue(relay.spool, message=b"From: App <app@other.example>\r\nSubject: x\r\n" + body)
    run(relay)
    sent = one(server).body
    assert sent.endswith(b"From: App <relay@example.com>\r\nReply-To: App <app@other.example>\r\n" + body)
    assert dkim.verify(sent, dnsfunc=lambda *_args, **_more: record)


# Signatures.


@pytest.mark.parametrize("keys", [{}, {"sender": OURS, "rewriteFrom": "replace"}])
def test_mail_without_from_is_signed_once_it_has_one(relay: Relay, server: Server, keys) -> None:
    record = with_key(relay)
    through(relay, (server, keys), dkim={"enabled": True, "domain": "example.com"})
    queue(relay.spool, message=b"Subject: x\r\n\r\nhello\r\n")
    run(relay)
    sent = one(server).body
    assert (b"DKIM-Signature:" in sent, b"From:" in sent) == (bool(keys), bool(keys))
    assert not keys or dkim.verify(sent, dnsfunc=lambda *_args, **_more: record)


def test_one_provider_signs_itself_and_the_next_gets_our_signature(relay: Relay) -> None:
    with_key(relay)
    with Server({"dot": "550 5.7.1 not from here"}) as first, Server() as second:
        through(
            relay, (first, {"dkim": False}), (second, {}), dkim={"enabled": True, "domain": "example.com"}
        )
        queue(relay.spool)
        run(relay)
        assert one(first).body == MESSAGE
        assert one(second).body.startswith(b"DKIM-Signature:")


def test_a_key_that_cannot_be_used_stops_only_mail_that_needs_it(relay: Relay) -> None:
    with Server() as unsigned, Server() as signed:
        settings = {"dkim": {"enabled": True, "domain": "example.com"}}
        through(relay, (unsigned, {"dkim": False}), (signed, {}), **settings)
        queue(relay.spool)
        run(relay)
        assert one(unsigned).body == MESSAGE
        through(relay, (signed, {}), (unsigned, {"dkim": False}), **settings)
        waiting = queue(relay.spool)
        run(relay)
        assert (len(signed.messages), len(unsigned.messages)) == (0, 1)
    left = found(relay.spool, waiting)
    assert left is not None
    assert (outcomes(left), left.events[-1]["scope"]) == ([("deferred", (TO,))], "local")


# Notifications.


def test_a_provider_that_refuses_the_null_sender_takes_notifications_from_an_address(relay: Relay) -> None:
    with Server({"rcpt": per_address({TO: NO_SUCH_USER}), "mail": but_not("")}) as server:
        through(relay, (server, {"bounceFrom": BOUNCES}), bounce="sender")
        message = queue(relay.spool)
        run(relay)
        sent = one(server)
    notification = read(sent.body, sent.recipients)
    assert (sent.sender, sent.recipients) == (BOUNCES, [SENDER])
    assert notification.header["Auto-Submitted"] == "auto-replied"
    assert notification.header["From"] == "Mail Delivery System <MAILER-DAEMON@relay.example.com>"
    assert sent.rcpt_lines == [f"RCPT TO:<{SENDER}> NOTIFY=NEVER".encode()]
    assert f"the sender is notified in {_notice(relay, message)}, sent to {SENDER}" in why(relay, message)


def test_a_notification_is_never_answered_with_one_whatever_its_sender(relay: Relay) -> None:
    with Server({"rcpt": NO_SUCH_USER}) as server:
        through(relay, (server, {"bounceFrom": BOUNCES}), bounce="sender")
        message = queue(relay.spool)
        run(relay)
        run(relay)
        assert server.messages == []
    assert len(walk(relay.spool)) == 2
    notice = _notice(relay, message)
    assert f"the sender was not notified: notification {notice} failed at" in why(relay, message)
    assert "no notification is sent: the sender is <>" in why(relay, notice)


def test_why_says_that_the_sender_could_not_be_notified(relay: Relay) -> None:
    with Server({"rcpt": per_address({TO: NO_SUCH_USER}), "mail": but_not("")}) as server:
        through(relay, (server, {}), bounce="sender")
        message = queue(relay.spool)
        run(relay)
        # A refusal that is not clearly about the mail is asked for a second time.
        relay.mailer("spool", "retry", _notice(relay, message))
        run(relay)
        assert server.messages == []
    story = why(relay, message)
    assert f"the sender was not notified: notification {_notice(relay, message)} failed at" in story
    assert "550 5.7.1 we take no mail from there" in story
    assert "bounceFrom" in why(relay, _notice(relay, message))


def test_a_notification_that_waits_is_not_said_to_be_read(relay: Relay) -> None:
    with Server({"rcpt": per_address({TO: NO_SUCH_USER, SENDER: "451 4.7.1 greylisted"})}) as server:
        through(relay, (server, {}), bounce="sender")
        message = queue(relay.spool)
        run(relay)
    said = (
        f"the sender is to be notified in {_notice(relay, message)}, not delivered yet: 451 4.7.1 greylisted"
    )
    assert said in why(relay, message)


@pytest.mark.parametrize("header", [b"Subject: out of office\r\n", b"Auto-Submitted: no\r\nSubject: x\r\n"])
def test_an_applications_mail_from_the_null_sender_is_marked_too(
    relay: Relay, server: Server, header
) -> None:
    through(relay, (server, {"bounceFrom": BOUNCES}))
    queue(relay.spool, message=header + b"\r\nhello\r\n", sender="")
    run(relay)
    sent = one(server)
    assert (sent.sender, sent.body.count(b"Auto-Submitted:"), AUTOMATIC in sent.body) == (BOUNCES, 1, True)


@pytest.mark.parametrize("key", ["sender", "bounceFrom"])
def test_what_is_no_address_is_refused_before_mail_is_touched(relay: Relay, server: Server, key) -> None:
    through(relay, (server, {key: "not an address"}))
    queue(relay.spool)
    done = relay.mailer_send("--once")
    assert (done.returncode, f"$.forwardProviders[0].{key}" in done.stderr) == (78, True)
    assert f"$.forwardProviders[0].{key}: is not an address" in relay.mailer("config", "check").stderr


def _notice(relay: Relay, message: str) -> str:
    left = found(relay.spool, message)
    assert left is not None
    return str(left.events[-1]["notice"])


def test_what_a_mail_is_shown_as_depends_on_nothing_else() -> None:
    """Mail from `<>` and other mail, with and without the keys: only what the keys say changes."""
    accepted = Envelope(SENDER, (Recipient(TO, notify="SUCCESS", orcpt="rfc822;x"),), ret="FULL")
    null = Envelope("", accepted.recipients)
    head = b"From: a@b.example\r\n"
    for terms in (Presentation(), Presentation(dkim=False), Presentation(bounce_from=BOUNCES)):
        assert terms.envelope(accepted) is accepted
        assert terms.recipients(accepted, accepted.recipients) is accepted.recipients
        assert not terms.edits(accepted)
        assert terms.header(head, accepted) == head
    replaced = Presentation(sender=OURS, rewrite_from=RewriteFrom.REPLACE)
    assert replaced.envelope(null) is null
    assert replaced.envelope(accepted).sender == OURS
    assert replaced.envelope(accepted).ret == "FULL"
