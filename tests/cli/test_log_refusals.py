"""`mailer log --to ADDRESS` never answers half the truth: what was refused, held or limited is found, too."""

import json
import smtplib
from typing import Any

import pytest
from outbound.hostile import Server
from outbound.sending import SENDER, TO, forward_to
from testbed.ports import LOOPBACK
from testbed.relay import Relay

MAIL = (
    b"From: <app@example.com>\r\nSubject: =?utf-8?q?Ihre_Bestellung_=C3=BC?=\r\n =?utf-8?b?YmVyIDQy?=\r\n"
    b"Message-ID: <order-42@shop.example.com>\r\n\r\nhello\r\n"
)
FOUND = {"subject": "Ihre Bestellung über 42", "messageId": "<order-42@shop.example.com>"}


def lines(relay: Relay, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in relay.mailer("log", "--json", *arguments).stdout.splitlines()]


def log(relay: Relay, *arguments: str) -> str:
    done = relay.mailer("log", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def submit(relay: Relay, message: bytes = MAIL) -> int:
    """Submit to two recipients; return the last reply's code."""
    with relay.connect() as client:
        client.mail(SENDER)
        client.rcpt(TO)
        client.rcpt("eve@example.org")
        return client.data(message)[0]


def test_a_message_that_is_refused_at_its_end_is_found_by_its_recipients(relay: Relay) -> None:
    with relay.serve():
        assert submit(relay, MAIL + b"NUL \0 here\r\n") == 554
    [line] = lines(relay, "--to", TO)
    assert line["event"] == "rejected"
    assert line["to"] == [TO, "eve@example.org"]
    assert line["from"] == SENDER
    assert line["size"] > len(MAIL)
    assert {key: line[key] for key in FOUND} == FOUND
    told = log(relay, "--to", TO)
    assert '"Ihre Bestellung über 42" <order-42@shop.example.com>' in told
    assert "554 5.6.0 The message has a NUL" in told


def test_a_message_in_chunks_that_is_refused_is_found_too(relay: Relay) -> None:
    with relay.serve(), relay.connect() as client:
        client.mail(SENDER)
        client.rcpt(TO)
        damaged = MAIL + b"NUL \0 here\r\n"
        client.send(b"BDAT %d LAST\r\n" % len(damaged) + damaged)
        assert client.getreply()[0] == 554
    [line] = lines(relay, "--to", TO)
    assert (line["event"], line["messageId"]) == ("rejected", FOUND["messageId"])


def test_what_is_accepted_is_found_by_subject_and_message_id(relay: Relay) -> None:
    with relay.serve():
        submit(relay)
        submit(relay, b"From: <app@example.com>\r\nSubject: other\r\n\r\nhello\r\n")
    for arguments in (("--subject", "bestellung über"), ("--message-id", "order-42@")):
        [line] = lines(relay, *arguments)
        assert (line["event"], line["messageId"]) == ("accepted", FOUND["messageId"]), arguments
    [other] = lines(relay, "--subject", "OTHER")
    assert other["messageId"].startswith(f"<{other['id']}@"), "the one that we added"


def test_who_must_not_keep_subjects_switches_them_off(relay: Relay) -> None:
    relay.configure({"logSubjects": False})
    with relay.serve() as receiver:
        submit(relay)
        submit(relay, MAIL + b"\0\r\n")
    assert "Bestellung" not in json.dumps(lines(relay))
    assert "order-42" not in json.dumps(lines(relay)) + receiver.output()
    assert len(lines(relay, "--to", TO)) == 2


def test_what_an_operator_does_is_found_by_the_recipient(relay: Relay) -> None:
    with relay.serve():
        submit(relay)
    [accepted] = lines(relay)
    for verb in ("hold", "release", "retry"):
        assert relay.mailer("spool", verb, accepted["id"]).returncode == 0
    events = [line["event"] for line in lines(relay, "--to", TO)]
    assert events == ["accepted", "held", "released", "requeued"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no room": ({"minFreeSpace": 2**60}, "452"),
    "rate limit": ({"rateLimits": {"enabled": True, "maxPerHour": 1}}, "451 4.7.1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_was_refused_before_it_named_a_recipient_is_counted_where_nothing_is_found(
    case: str, relay: Relay
) -> None:
    """The operator asks for the recipient, and is told of what cannot be found by it, and how to see it."""
    settings, code = REFUSED[case]
    relay.configure(settings)
    with relay.serve():
        if case == "rate limit":
            assert submit(relay) == 250
        with relay.connect() as client:
            client.ehlo()
            assert str(client.mail(SENDER, ["SIZE=4321"])[0]) == code[:3]
    told = log(relay, "--to", "nobody@example.net")
    assert "nothing found" in told
    assert "1 submission ended before a recipient was named, the last at 20" in told
    assert code in told
    command = told.partition("See them: mailer log ")[2].strip()
    kind = command.split()[1]
    since = command.partition("--since '")[2].rstrip("'")
    [line] = lines(relay, "--status", kind, "--since", since)
    assert (line["from"], line["size"]) == (SENDER, 4321), "what was asked"


def test_a_wrong_password_is_what_keeps_a_recipient_from_being_found(relay: Relay) -> None:
    with (
        relay.serve(),
        smtplib.SMTP(LOOPBACK, relay.port) as client,
        pytest.raises(smtplib.SMTPAuthenticationError),
    ):
        client.login("app@example.com", "wrong")
    told = log(relay, "--to", TO)
    assert "login failed. See them: mailer log --status login-failed" in told


def test_the_providers_name_stands_beside_its_address(relay: Relay) -> None:
    with Server() as server:
        named = [{"name": "Acme", "host": LOOPBACK, "port": server.port}]
        relay.configure(forward_to(forwardProviders=named))
        with relay.serve():
            submit(relay)
        relay.mailer_send()
    told = log(relay, "--to", TO, "--status", "sent")
    assert f"at Acme ({LOOPBACK}:{server.port})" in told
    [message] = {line["id"] for line in lines(relay, "--status", "accepted")}
    assert f"at Acme ({LOOPBACK}:{server.port})" in relay.mailer("spool", "why", message).stdout
