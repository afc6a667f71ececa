"""What a bounce says about mail that expired, that is uncertain, or that was refused with odd replies."""

from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest
from outbound.bounces import notifications, submit
from outbound.hostile import DROP, Server, per_address
from outbound.notifying import BOB, EVE, LATER, NEVER, only_notification, run, sending
from outbound.sending import MESSAGE, TO, at, found, queue
from testbed.relay import Relay

from mailer.mail.envelope import Recipient


def test_a_delayed_recipient_is_reported_once_and_only_to_senders_that_asked(relay: Relay) -> None:
    late = {"": "plain@example.net", "DELAY": "asked@example.net"}
    silent = {"FAILURE": "not@example.net", "NEVER": "never@example.net", "SUCCESS": "s@example.net"}
    with Server({"rcpt": per_address(dict.fromkeys((late | silent).values(), LATER))}) as server:
        sending(relay, server, delayWarning="1h", retry={"schedule": ["30m"], "maxAge": "1d"})
        message = submit(relay.spool, *(Recipient(who, notify=kind) for kind, who in (late | silent).items()))
        run(relay)
        run(relay, "+35m")
        assert notifications(server) == []
        for shift in ("+70m", "+105m", "+140m"):
            run(relay, shift)
        warning = only_notification(server)
    assert warning.header["Subject"] == "Delayed mail, still being tried"
    assert warning.recipients.keys() == set(late.values())
    fields = warning.recipients[late["DELAY"]]
    assert (fields["Action"], fields["Status"]) == ("delayed", "4.7.1")
    until = parsedate_to_datetime(fields["Will-Retry-Until"]) - parsedate_to_datetime(
        warning.message["Arrival-Date"]
    )
    assert until == timedelta(days=1)
    assert warning.copy_kind == "text/rfc822-headers"
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert "the sender was notified of the delay in" in relay.mailer("spool", "why", message).stdout


def test_expired_mail_is_reported_with_its_code_and_the_last_trouble(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: LATER, EVE: NEVER})}) as server:
        sending(relay, server, retry={"schedule": ["1m"], "maxAge": "1h"})
        queue(relay.spool, [BOB, EVE])
        for shift in ("+0", "+2h", "+130m", "+135m"):
            run(relay, shift)
        first, second = notifications(server)
    assert {who: fields["Status"] for who, fields in first.recipients.items()} == {EVE: "5.1.1"}
    assert second.recipients.keys() == {BOB}
    assert second.recipients[BOB]["Status"] == "5.4.7"
    assert second.recipients[BOB]["Action"] == "failed"
    assert second.recipients[BOB]["Diagnostic-Code"] == f"smtp; {LATER}"


def test_mail_that_expires_while_uncertain_is_reported_as_perhaps_delivered(relay: Relay) -> None:
    """One server took it whole and lost the reply; when it is given up, we say that this is not known."""
    with Server({"dot": DROP}) as doubtful:
        sending(relay, doubtful, retry={"schedule": ["1m"], "maxAge": "1h"})
        message = queue(relay.spool, [BOB])
        run(relay)
    for shift in ("+2h", "+130m"):
        run(relay, shift)
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses) == ("failed", {BOB: "expired"})
    doubt = f"was handed to {at(doubtful)}, whose answer was lost; it may have been delivered"
    assert doubt in relay.mailer("spool", "why", message).stdout
    with Server() as server:
        sending(relay, server)
        run(relay, "+140m")
        told = only_notification(server)
    fields = told.recipients[BOB]
    assert (fields["Action"], fields["Status"]) == ("failed", "4.4.2")
    assert fields["Diagnostic-Code"] == f"X-mailer; {doubt}; last: Connection refused"
    assert told.header["Subject"] == "Mail that may not have been delivered"
    assert doubt in told.words
    assert "could not be delivered" not in told.words
    assert relay.mailer("spool", "rm", message).returncode == 0
    assert doubt in relay.mailer("spool", "why", message).stdout


def test_a_delay_warning_for_uncertain_mail_does_not_say_that_it_was_not_delivered(relay: Relay) -> None:
    with Server({"dot": [DROP, DROP, None]}) as server:
        sending(relay, server, retry={"schedule": ["1m"], "maxAge": "1d"}, delayWarning="1h")
        queue(relay.spool, [BOB])
        for shift in ("+0", "+2h", "+130m"):
            run(relay, shift)
        warning = only_notification(server)
    assert (warning.recipients[BOB]["Action"], warning.recipients[BOB]["Status"]) == ("delayed", "4.4.2")
    assert "It has not been delivered" not in warning.words
    assert f"was handed to {at(server)}, whose answer was lost" in warning.words


def test_our_own_errors_are_not_reported_as_a_servers_reply(relay: Relay) -> None:
    with Server() as gone:
        pass
    sending(relay, gone, retry={"schedule": ["1m"], "maxAge": "1h"})
    queue(relay.spool, [BOB])
    for shift in ("+0", "+2h", "+130m"):
        run(relay, shift)
    with Server() as server:
        sending(relay, server)
        run(relay, "+140m")
        fields = only_notification(server).recipients[BOB]
    assert fields["Diagnostic-Code"].startswith("X-mailer; ")
    assert "Connection refused" in fields["Diagnostic-Code"]
    assert "Remote-MTA" not in fields


def test_mail_refused_because_of_the_ehlo_reply_is_reported_as_our_own_conclusion(relay: Relay) -> None:
    large = b"Subject: hello\r\n\r\n" + b"hello\r\n" * 1000
    with Server(extensions=("SIZE 6000",)) as server:
        sending(relay, server)
        submit(relay.spool, Recipient(BOB), message=large, ret="HDRS")
        run(relay)
        bounce = only_notification(server)
    text = f"552 5.3.4 message of {len(large)} octets exceeds the limit of 6000 at {at(server)}"
    assert bounce.recipients[BOB]["Diagnostic-Code"] == f"X-mailer; {text}"
    assert bounce.recipients[BOB]["Status"] == "5.3.4"
    assert "Remote-MTA" not in bounce.recipients[BOB]
    assert "said:" not in bounce.words


@pytest.mark.security_case(84)
@pytest.mark.parametrize(
    "words",
    [
        b"no\x1b[2J\x07 \x9b31m user",
        b"no\rBcc: victim@example.org\r--=_\r\rX-Injected: 1",
        b"x" * 3900,
        b"word " * 700,
        "nö üser".encode(),
    ],
)
def test_a_reply_full_of_controls_is_escaped_and_cut_wherever_it_is_shown(relay: Relay, words: bytes) -> None:
    """SECURITY_CASES 84."""
    with Server(
        {"rcpt": lambda _, line: b"550 5.1.1 " + words + b"\r\n" if BOB.encode() in line else None}
    ) as server:
        sending(relay, server)
        message = queue(relay.spool, [BOB])
        done = relay.mailer_send("--once")
        bounce = only_notification(server)
    left = found(relay.spool, message)
    assert left is not None
    (reply,) = [str(event["reply"]) for event in left.events if event["event"] == "bounced"]
    [ledger] = (relay.spool / "log").glob("*.jsonl")
    why = relay.mailer("spool", "why", message).stdout
    for shown in (reply, *why.splitlines(), *ledger.read_text().splitlines(), *done.stderr.splitlines()):
        assert shown.isprintable()
    assert len(reply) <= 1000
    assert max(map(len, bounce.raw.split(b"\r\n"))) <= 998
    assert not set(range(32)) - {9, 10, 13} & set(bounce.raw)
    assert bounce.raw.count(b"\r") == bounce.raw.count(b"\n") == bounce.raw.count(b"\r\n")
    assert bounce.recipients.keys() == {BOB}
    assert bounce.recipients[BOB]["Status"] == "5.1.1"
    assert len(bounce.recipients[BOB]["Diagnostic-Code"]) < 700
    assert bounce.copy == MESSAGE
    assert not any("\nX-Injected" in text or "\nBcc" in text for text in (bounce.raw.decode(), bounce.words))


@pytest.mark.security_case(84)
def test_a_reply_of_a_megabyte_is_trouble_with_the_server_and_shown_cut(relay: Relay) -> None:
    """SECURITY_CASES 84: it decides nothing about the mail; the line never ends within our bound."""
    with Server({"rcpt": b"550 5.1.1 " + b"x" * 1_000_000 + b"\r\n"}) as server:
        sending(relay, server)
        message = queue(relay.spool, [TO])
        run(relay)
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert max(len(str(event.get("reply", ""))) for event in left.events) <= 1000
    [ledger] = (relay.spool / "log").glob("*.jsonl")
    assert len(ledger.read_bytes()) < 10_000
