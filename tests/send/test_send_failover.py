"""Trouble with a provider sends the mail to the next one in the same run; trouble with the mail does not."""

import json
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from outbound.hostile import DROP, HANG, RESET, Server, reached
from outbound.sending import (
    LOGIN,
    MESSAGE,
    PASSWORD,
    REFUSED,
    TO,
    USER,
    at,
    forward_to,
    found,
    outcomes,
    queue,
)
from testbed.ports import LOOPBACK
from testbed.relay import Relay

LOST = "connection closed by the server"


def certificate() -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that no system trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(LOOPBACK).configure_cert(context)
    return context


def secure(**settings: Any) -> Server:
    return Server(tls=certificate(), **settings)


TROUBLE: dict[str, tuple[Callable[[], Server], dict[str, Any], str]] = {
    "banner 5xx": (lambda: Server({"banner": "554 5.3.2 go away"}), {}, "554 5.3.2 go away"),
    "banner 4xx": (lambda: Server({"banner": "421 4.3.2 busy"}), {}, "421 4.3.2 busy"),
    "drop at connect": (lambda: Server({"connect": DROP}), {}, LOST),
    "EHLO 5xx": (lambda: Server({"ehlo": "550 no", "helo": "550 5.7.1 no"}), {}, "550 5.7.1 no"),
    "certificate": (lambda: secure(implicit_tls=True), {"ssl": True}, "certificate verify failed"),
    "STARTTLS certificate": (lambda: secure(auth="PLAIN"), LOGIN, "certificate verify failed"),
    "TLS handshake": (
        lambda: secure(script={"handshake": b"220 surprise\r\n"}, auth="PLAIN"),
        LOGIN,
        "TLS handshake failed: wrong version number",
    ),
    "AUTH 535": (
        lambda: Server({"auth": "535 5.7.8 bad credentials"}, auth="PLAIN"),
        LOGIN,
        "535 5.7.8 bad credentials",
    ),
    "no AUTH": (Server, LOGIN, "no AUTH mechanism in common (offered: none)"),
    "421 to MAIL": (lambda: Server({"mail": "421 4.3.2 closing"}), {}, "421 4.3.2 closing"),
    "421 to RCPT": (lambda: Server({"rcpt": "421 4.7.0 too much"}), {}, "421 4.7.0 too much"),
    "421 to DATA": (lambda: Server({"data": "421 4.3.2 closing"}), {}, "421 4.3.2 closing"),
    "drop in the body": (lambda: Server({"body": RESET}, body_after=10), {}, "Connection reset by peer"),
    "quota": (lambda: Server({"mail": "550 5.4.5 daily quota used up"}), {}, "550 5.4.5 daily quota used up"),
    "host's disk": (lambda: Server({"dot": "452 4.3.1 disk full"}), {}, "452 4.3.1 disk full"),
    "policy": (lambda: Server({"rcpt": "550 5.7.1 you are listed"}), {}, "550 5.7.1 you are listed"),
}


# What real providers say to everybody, in the codes of a refused recipient or mail.
TO_EVERYBODY = {
    "EHLO name": ("rcpt", "504 5.5.2 <vm>: Helo command rejected: need fully-qualified hostname"),
    "EHLO name, at DATA": ("dot", "550 Access Denied - Invalid HELO name"),
    "not activated": ("mail", "502 5.7.0 Your SMTP account is not yet activated"),
    "not authenticated": ("mail", "550 Unauthenticated senders not allowed"),
    "suspended": ("rcpt", '550 Outgoing mail from "example.com" has been suspended.'),
    "blocked": ("dot", "550 5.4.6 Unusual sending activity detected"),
    "bad outbound sender": ("dot", "550 5.1.8 Access denied, bad outbound sender AS(42003)"),
    "relaying": ("rcpt", "550 relay not permitted"),
    "quota": ("rcpt", "550 User a@example.com has exceeded its 24-hour sending limit."),
    "quota exception": ("dot", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"),
    "address": (
        "rcpt",
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
    ),
}


@pytest.mark.parametrize("name", TO_EVERYBODY)
def test_what_a_provider_says_to_everybody_bounces_nothing_and_the_next_one_gets_it(
    name: str, relay: Relay
) -> None:
    phase, words = TO_EVERYBODY[name]
    with Server({phase: words}) as first, Server() as second:
        relay.configure(forward_to(first))
        alone = [queue(relay.spool) for _ in range(2)]
        assert relay.mailer_send("--once").returncode == 0
        for message in alone:
            left = found(relay.spool, message)
            assert left is not None
            assert (left.place, left.statuses) == ("retry", {TO: "deferred"})
        relay.mailer("providers", "reset", "--all")
        relay.configure(forward_to(first, second))
        with_a_backup = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert second.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, with_a_backup) is None


NOT_OURS = {
    "QQ": "501 mail from address must be same as authorization user",
    "163": "553 Mail from must equal authorized user",
    "Aliyun": "440 mail from account doesn't conform with authentication",
    "SendGrid": "550 The from address does not match a verified Sender Identity.",
    "Microsoft": "554 5.2.252 SendAsDenied; a@example.com not allowed to send as b@example.com",
    "unclear": "550 no",
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_sender_that_one_account_may_not_use_goes_to_the_next_provider(name: str, relay: Relay) -> None:
    with Server({"mail": NOT_OURS[name]}) as first, Server() as second:
        relay.configure(forward_to(first, second))
        for _ in range(2):
            queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert second.delivered() == [(TO, MESSAGE)] * 2
        rows = relay.mailer("providers", "--json").stdout.splitlines()
    assert [json.loads(row)["health"] for row in rows] == ["closed", "closed"]


@pytest.mark.parametrize(
    "words",
    [
        "421 4.7.0 This message is suspicious due to the nature of the content",
        "421 4.7.1 Messages to bob@example.net deferred due to excessive volume",
        "421 4.7.32 This mail has been rate limited because there is no DMARC alignment",
    ],
)
def test_one_mails_421_at_its_end_does_not_close_the_provider_to_others(words: str, relay: Relay) -> None:
    answers = iter([words])
    with Server({"dot": lambda *_: next(answers, "250 2.0.0 ok")}) as server:
        relay.configure(forward_to(server))
        ids = [queue(relay.spool) for _ in range(3)]
        assert relay.mailer_send("--once").returncode == 0
        rows = relay.mailer("providers", "--json").stdout.splitlines()
    assert [json.loads(row)["health"] for row in rows] == ["closed"]
    left = [entry for message in ids if (entry := found(relay.spool, message))]
    assert [entry.statuses for entry in left] == [{TO: "deferred"}]


def test_a_421_about_the_recipient_never_closes_the_provider_however_often_it_is_said(relay: Relay) -> None:
    words = "421 4.7.1 Messages to bob@example.net deferred due to excessive volume"
    with Server({"rcpt": words}) as server:
        relay.configure(forward_to(server))
        ids = [queue(relay.spool) for _ in range(5)]
        assert relay.mailer_send("--once").returncode == 0
        rows = relay.mailer("providers", "--json").stdout.splitlines()
    assert [json.loads(row)["health"] for row in rows] == ["closed"]
    for message in ids:
        left = found(relay.spool, message)
        assert left is not None
        assert left.statuses == {TO: "deferred"}


@pytest.mark.parametrize("name", TROUBLE)
def test_provider_trouble_goes_to_the_next_provider_in_the_same_run(name: str, relay: Relay) -> None:
    make, settings, words = TROUBLE[name]
    with make() as broken, Server() as good:
        first = {"host": LOOPBACK, "port": broken.port, **settings}
        providers = [first, {"host": LOOPBACK, "port": good.port}]
        # More than the kernel's buffers take, so that it is still under way when the server breaks it off.
        body = MESSAGE + b"line\r\n" * 3_000_000 if name == "drop in the body" else MESSAGE
        relay.configure(forward_to(forwardProviders=providers, security={"logAllEmails": True}))
        message = queue(relay.spool, message=body)
        assert relay.mailer_send("--once").returncode == 0
        assert broken.delivered() == []
        assert good.delivered() == [(TO, body)]
    copy = found(relay.spool, message)
    assert copy is not None
    assert copy.place == "sent"
    [trouble] = [event for event in copy.events if event["event"] == "trouble"]
    assert words in trouble["reply"]
    assert trouble["hop"] == at(broken)
    assert PASSWORD not in json.dumps(copy.events)
    if name in {"drop at connect", "AUTH 535", "quota"}:
        story = relay.mailer("spool", "why", message).stdout
        assert f"at {at(broken)} (attempt 1), going on to another next hop: {words}" in story
        assert f"sent for {TO} at {at(good)}" in story


def test_a_refused_connection_goes_to_the_next_provider(relay: Relay, free_port: int) -> None:
    with Server() as good:
        relay.configure(forward_to(free_port, good))
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert good.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None


def test_with_no_provider_left_the_mail_waits_with_the_systems_own_words(
    relay: Relay, free_port: int
) -> None:
    relay.configure(forward_to(free_port))
    message = queue(relay.spool)
    assert relay.mailer_send("--once").returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert outcomes(left) == [("deferred", (TO,))]
    [deferred] = left.events[1:]
    assert (deferred["reply"], deferred["hop"], deferred["attempt"]) == (REFUSED, at(free_port), 1)
    # The bucket is the minute of `next`, rounded up.
    assert left.bucket >= str(deferred["next"])[:16].replace("-", "").replace(":", "") + "Z"


@pytest.mark.fault_row(21)
def test_nothing_bounces_while_every_provider_refuses_our_login(relay: Relay) -> None:
    """An expired password is our trouble, not the mail's."""
    refusing = {"auth": "535 5.7.8 bad credentials"}
    with Server(refusing, auth="PLAIN") as first, Server(refusing, auth="LOGIN") as second:
        providers = [{"host": LOOPBACK, "port": server.port, **LOGIN} for server in (first, second)]
        relay.configure(forward_to(forwardProviders=providers))
        ids = [queue(relay.spool) for _ in range(3)]
        assert relay.mailer_send("--once").returncode == 0
    for message in ids:
        left = found(relay.spool, message)
        assert left is not None
        assert (left.place, left.statuses) == ("retry", {TO: "deferred"})


def test_the_last_provider_that_refuses_by_policy_decides(relay: Relay) -> None:
    with Server({"rcpt": "550 5.7.1 listed"}) as first, Server({"rcpt": "550 5.7.1 listed too"}) as second:
        relay.configure(forward_to(first, second))
        message = queue(relay.spool)
        relay.mailer_send()
        left = found(relay.spool, message)
        assert left is not None
        assert (left.place, left.events[-1]["unclear"]) == ("retry", True)
        told = relay.mailer("spool", "why", message).stdout
        assert "bounces if it is refused so again" in told
        assert "given up on" not in told, "it is given up at its next attempt"
        relay.mailer("spool", "retry", message)
        relay.mailer_send()
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.events[-1]["reply"]) == ("failed", "550 5.7.1 listed too")


@pytest.mark.parametrize(
    ("script", "fate"),
    [
        ({"rcpt": "450 4.2.2 mailbox full"}, "deferred"),
        ({"rcpt": "451 4.7.1 greylisted"}, "deferred"),
        ({"dot": "451 4.6.0 later"}, "deferred"),
        ({"mail": "451 4.1.8 sender unknown for now"}, "deferred"),
        ({"rcpt": "550 5.1.1 no such user"}, "bounced"),
        ({"dot": "554 5.6.0 no"}, "bounced"),
    ],
)
def test_trouble_with_the_mail_is_not_taken_to_another_provider(
    script: dict[str, str], fate: str, relay: Relay
) -> None:
    with Server(script) as first, Server() as second:
        relay.configure(forward_to(first, second))
        message = queue(relay.spool)
        relay.mailer_send()
        assert second.sessions == []
    left = found(relay.spool, message)
    assert left is not None
    assert left.statuses == {TO: fate}
    assert left.events[-1]["reply"] == next(iter(script.values()))


def test_providers_are_tried_by_priority_and_not_by_their_order_in_the_file(relay: Relay) -> None:
    with Server() as second, Server() as first:
        providers = [
            {"host": LOOPBACK, "port": second.port, "priority": 20},
            {"host": LOOPBACK, "port": first.port, "priority": 10},
        ]
        relay.configure(forward_to(forwardProviders=providers))
        queue(relay.spool)
        relay.mailer_send()
        assert first.delivered() == [(TO, MESSAGE)]
        assert second.sessions == []


def test_a_password_is_not_sent_in_clear_to_another_host(relay: Relay, elsewhere: str) -> None:
    """This machine by an address that is not loopback: AUTH is offered, TLS is not."""
    with Server(auth="PLAIN LOGIN", host=elsewhere) as server:
        providers = [{"host": server.host, "port": server.port, **LOGIN}]
        relay.configure(forward_to(forwardProviders=providers))
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        [session] = server.sessions
        assert not any(command.startswith(b"AUTH") for command in session.commands)
        assert server.messages == []
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert "credentials are not sent in clear" in str(left.events[-1]["reply"])


def test_a_password_is_sent_in_clear_to_loopback(relay: Relay) -> None:
    with Server(auth="PLAIN") as server:
        relay.configure(forward_to(forwardProviders=[{"host": LOOPBACK, "port": server.port, **LOGIN}]))
        queue(relay.spool)
        relay.mailer_send()
        assert server.delivered() == [(TO, MESSAGE)]
        assert any(command.startswith(b"AUTH PLAIN") for command in server.sessions[0].commands)


def test_a_server_that_never_answers_the_banner_is_no_reason_to_lose_a_second_message(relay: Relay) -> None:
    """The first message's session is stuck; SIGTERM ends the run and both are still there."""
    stuck = threading.Event()
    with Server({"banner": reached(stuck, HANG)}) as server:
        relay.configure(forward_to(server, sending={"shutdownGrace": 0}))
        ids = [queue(relay.spool), queue(relay.spool)]
        with relay.watch():
            assert stuck.wait(60)
    assert [found(relay.spool, message).place for message in ids] == ["new", "new"]  # type: ignore[union-attr]


@pytest.mark.parametrize("secret", [{"file": "not-there"}, {"command": ["false"]}, {"env": "NOT_SET"}])
def test_a_password_that_cannot_be_had_is_trouble_with_its_provider(relay: Relay, secret: Any) -> None:
    with Server(auth="PLAIN") as first, Server() as second:
        relay.configure(forward_to(first, second))
        providers = [
            {"host": LOOPBACK, "port": first.port, "username": USER, "password": secret},
            {"host": LOOPBACK, "port": second.port},
        ]
        relay.configure({"forwardProviders": providers})
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert second.delivered() == [(TO, MESSAGE)]
        assert first.messages == []
    assert found(relay.spool, message) is None
    assert "$.forwardProviders[0].password" in relay.mailer("spool", "why", message).stdout
