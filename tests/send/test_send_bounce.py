"""What senders are told: the notifications of RFC 3464, who gets them, and what NOTIFY and RET make of it."""

import json
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from outbound.bounces import Notification, notifications, submit, told
from outbound.hostile import DROP, Server, per_address
from outbound.sending import MESSAGE, SENDER, TO, at, forward_to, found, queue
from spools.walk import untold, walk
from testbed.capability import tracer
from testbed.faketime import faketime
from testbed.http_client import post
from testbed.relay import Relay
from testbed.waiting import until

from mailer.mail.envelope import Recipient

ANN, BOB, EVE = "ann@example.net", "bob@example.net", "eve@example.org"
NEVER, LATER = "550 5.1.1 no such user", "451 4.7.1 greylisted"
NO_DSN = ("PIPELINING", "8BITMIME", "SMTPUTF8")


def sending(relay: Relay, server: Server, **settings: object) -> None:
    relay.configure(forward_to(server, **({"bounce": "sender", "hostname": "relay.example.com"} | settings)))


def run(relay: Relay, shift: str = "") -> None:
    done = relay.mailer_send("--once", under=faketime(shift) if shift else ())
    assert done.returncode == 0, done.stderr


def one(server: Server) -> Notification:
    (notification,) = notifications(server)
    return notification


def test_by_default_the_sender_is_notified_in_words_and_in_machine_readable_form(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        settings = json.loads(relay.config.read_text())
        del settings["bounce"]
        relay.config.write_text(json.dumps(settings))
        message = submit(
            relay.spool,
            Recipient(ANN),
            Recipient(BOB, orcpt="rfc822;bob+2Bshop@example.net"),
            envid="QQ314159+3D",
        )
        run(relay)
        bounce = one(server)
    assert bounce.to == [SENDER]
    assert bounce.header["From"] == "Mail Delivery System <MAILER-DAEMON@relay.example.com>"
    assert bounce.header["To"] == SENDER
    assert bounce.header["Auto-Submitted"] == "auto-replied"
    assert f"<{BOB}>" in bounce.words
    assert ANN not in bounce.words
    assert f"{at(server)} said: {NEVER}" in bounce.words
    assert "will not be tried again" in bounce.words
    assert bounce.kind == "message/delivery-status"
    assert bounce.message["Reporting-MTA"] == "dns; relay.example.com"
    assert bounce.message["Original-Envelope-Id"] == "QQ314159="
    assert bounce.message["X-Mailer-Queue-Id"] == message
    assert bounce.recipients[BOB] | {"Last-Attempt-Date": ""} == {
        "Original-Recipient": "rfc822; bob+shop@example.net",
        "Final-Recipient": f"rfc822; {BOB}",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; [127.0.0.1]",
        "Diagnostic-Code": f"smtp; {NEVER}",
        "Last-Attempt-Date": "",
    }
    assert bounce.recipients.keys() == {BOB}
    assert (bounce.copy_kind, bounce.copy) == ("message/rfc822", b"Subject: hello\r\n\r\nhello\r\n")


def test_what_an_application_asks_for_by_smtp_is_what_its_bounce_says(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        with relay.up(), relay.connect() as session:
            session.mail(SENDER, ["RET=HDRS", "ENVID=order+2B4711"])
            session.rcpt(BOB, ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;bob@old.example"])
            session.rcpt(EVE, ["NOTIFY=NEVER"])
            assert session.data(MESSAGE)[0] == 250
            until(lambda: notifications(server), "the bounce")
        bounce = one(server)
    assert bounce.message["Original-Envelope-Id"] == "order+4711"
    assert bounce.recipients.keys() == {BOB}
    assert bounce.recipients[BOB]["Original-Recipient"] == "rfc822; bob@old.example"
    assert bounce.copy_kind == "text/rfc822-headers"
    assert bounce.copy.startswith(b"Received: from ")
    assert b"Subject: hello" in bounce.copy


def test_why_names_the_notification_of_a_message_and_the_message_of_a_notification(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER, SENDER: LATER})}) as server:
        sending(relay, server)
        message = submit(relay.spool, Recipient(BOB))
        run(relay)
    ((notice, whom),) = told(relay.spool, message).items()
    assert whom == [BOB]
    story = relay.mailer("spool", "why", message).stdout
    assert (
        f"(permanently refused; the sender is to be notified in {notice}, not delivered yet: {LATER})"
        in story
    )
    assert f"wrote to the sender about {BOB}, in notification {notice}" in story
    assert f"told in {notice}" in relay.mailer("spool", "show", message).stdout
    shown = json.loads(relay.mailer("spool", "show", "--json", message).stdout)
    assert [recipient["notice"] for recipient in shown["recipients"]] == [notice]
    assert shown["about"] is None
    about = relay.mailer("spool", "why", notice).stdout
    assert f"It is a notification by mailer about message {message}" in about
    assert json.loads(relay.mailer("spool", "show", "--json", notice).stdout)["about"] == message
    with Server() as server:
        sending(relay, server)
        relay.mailer("spool", "retry", notice)
        run(relay)
    assert found(relay.spool, notice) is None
    assert f"about message {message}" in relay.mailer("spool", "why", notice).stdout
    ledger = [
        json.loads(line)
        for file in (relay.spool / "log").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert [line["notice"] for line in ledger if line["event"] == "notified"] == [notice]
    assert [line["id"] for line in ledger if line.get("about")] == [notice]


@pytest.mark.security_case(83)
@pytest.mark.parametrize(
    ("ret", "size", "kind"),
    [
        ("", 100, "message/rfc822"),
        ("FULL", 100, "message/rfc822"),
        ("HDRS", 100, "text/rfc822-headers"),
        ("FULL", 60_000, "text/rfc822-headers"),
        ("", 5_000_000, "text/rfc822-headers"),
    ],
)
def test_the_message_comes_back_as_ret_says_and_only_its_header_when_it_is_large(
    relay: Relay, ret: str, size: int, kind: str
) -> None:
    """SECURITY_CASES 83: a bounce is capped."""
    header = b"Subject: hello\r\nX-Odd: --=_\r\n"
    message = header + b"\r\n.dot\r\n" + b"x" * 70 + b"\r\n" * (size // 2)
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        submit(relay.spool, Recipient(BOB), message=message, ret=ret)
        run(relay)
        bounce = one(server)
    assert bounce.copy_kind == kind
    assert bounce.copy == (message if kind == "message/rfc822" else header)
    assert len(bounce.raw) < len(bounce.copy) + 4000


def test_a_header_without_end_comes_back_cut_after_a_whole_line(relay: Relay) -> None:
    message = b"Subject: hello\r\n" + b"X-Long: %s\r\n" % (b"y" * 900) * 300
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        submit(relay.spool, Recipient(BOB), message=message)
        run(relay)
        bounce = one(server)
    assert message.startswith(bounce.copy)
    assert bounce.copy.endswith(b"\r\n")
    assert 40_000 < len(bounce.copy) <= 50_000


@pytest.mark.parametrize("extensions", [NO_DSN, (*NO_DSN, "DSN")])
def test_notify_decides_for_each_recipient_which_notifications_are_sent(relay: Relay, extensions) -> None:
    """RFC 3461 4.1, 5.2.1, 5.2.2: a server that takes DSN reports success itself, and gets the parameters."""
    kinds = ["", "NEVER", "SUCCESS", "FAILURE", "DELAY", "SUCCESS,FAILURE", "SUCCESS,DELAY", "FAILURE,DELAY"]
    good = {f"good{number}@example.net": kind for number, kind in enumerate(kinds)}
    bad = {f"bad{number}@example.net": kind for number, kind in enumerate(kinds)}
    answers = per_address(dict.fromkeys(bad, NEVER))
    with Server({"rcpt": answers}, extensions=extensions) as server:
        sending(relay, server)
        recipients = [Recipient(who, notify=kind) for who, kind in (good | bad).items()]
        message = submit(relay.spool, *recipients, ret="FULL")
        run(relay)
        bounce = one(server)
        lines = [line for mail in server.messages for line in mail.rcpt_lines]
    relayed = {who for who, kind in good.items() if "SUCCESS" in kind and "DSN" not in extensions}
    failed = {who for who, kind in bad.items() if "FAILURE" in (kind or "FAILURE")}
    assert {who: fields["Action"] for who, fields in bounce.recipients.items()} == (
        dict.fromkeys(relayed, "relayed") | dict.fromkeys(failed, "failed")
    )
    assert {bounce.recipients[who]["Status"] for who in relayed} <= {"2.0.0"}
    passed_on = b"RCPT TO:<good2@example.net> NOTIFY=SUCCESS" in lines
    assert passed_on == ("DSN" in extensions)
    story = relay.mailer("spool", "why", message).stdout
    assert "bad1@example.net: bounced" in story
    assert "(permanently refused; the sender asked for no notification)" in story


def test_success_alone_returns_the_header_and_says_that_it_was_passed_on(relay: Relay) -> None:
    """RFC 3461 4.3: RET is about failures. The message itself is gone by then."""
    with Server(extensions=NO_DSN) as server:
        sending(relay, server)
        message = submit(relay.spool, Recipient(BOB, notify="SUCCESS"), ret="FULL")
        run(relay)
        bounce = one(server)
    assert bounce.recipients[BOB]["Action"] == "relayed"
    assert bounce.copy_kind == "text/rfc822-headers"
    assert "does not confirm" in bounce.words
    assert found(relay.spool, message) is None
    assert walk(relay.spool) == {}


def test_mail_kept_in_the_local_maildir_is_confirmed_as_delivered(relay: Relay) -> None:
    relay.configure({"bounce": "sender"})
    submit(relay.spool, Recipient(BOB, notify="SUCCESS"), Recipient(ANN))
    run(relay)
    kept = [mail for mail in relay.delivered() if mail.startswith(b"Return-Path: <>\n")]
    assert len(kept) == 1
    assert b"Action: delivered\n" in kept[0]
    assert BOB.encode() in kept[0]
    assert ANN.encode() not in kept[0]


@pytest.mark.security_case(83)
@pytest.mark.parametrize("bounce", ["sender", "postmaster@example.com"])
def test_mail_from_the_null_sender_makes_no_bounce(relay: Relay, bounce: str) -> None:
    """SECURITY_CASES 83; RFC 5321 6.1."""
    with Server({"rcpt": NEVER}) as server:
        sending(relay, server, bounce=bounce)
        message = submit(relay.spool, Recipient(BOB, notify="SUCCESS,FAILURE,DELAY"), sender="")
        run(relay)
        assert server.messages == []
    assert walk(relay.spool).keys() == {message}
    assert walk(relay.spool)[message].place == "failed"
    assert "no notification is sent: the sender is <>" in relay.mailer("spool", "why", message).stdout


@pytest.mark.security_case(83)
def test_a_bounce_that_bounces_ends_there(relay: Relay) -> None:
    with Server({"rcpt": NEVER}) as server:
        sending(relay, server)
        message = queue(relay.spool, [BOB])
        run(relay)
        run(relay)
    left = walk(relay.spool)
    ((notice, _),) = told(relay.spool, message).items()
    assert left.keys() == {message, notice}
    assert {file.place for file in left.values()} == {"failed"}


@pytest.mark.parametrize(
    ("bounce", "told_whom"), [("off", None), ("postmaster@example.com", "postmaster@example.com")]
)
def test_the_configuration_decides_who_is_notified_and_the_status_is_the_same(
    relay: Relay, bounce: str, told_whom: str | None
) -> None:
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server, bounce=bounce)
        message = queue(relay.spool, [BOB])
        run(relay)
        sent = notifications(server)
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses) == ("failed", {BOB: "bounced"})
    assert [each.to for each in sent] == ([[told_whom]] if told_whom else [])
    if told_whom:
        assert f"the mail that <{SENDER}> sent" in " ".join(sent[0].words.split())


@pytest.mark.parametrize(
    ("staging", "sender", "goes_to"),
    [
        # Who has sent it is replaced by the receiver.
        (
            {"redirectAllTo": "dev@example.com", "allowedRecipients": [BOB]},
            "dev@example.com",
            ["dev@example.com"],
        ),
        ({"allowedRecipients": ["example.com"]}, SENDER, [SENDER]),
        ({"allowedRecipients": ["example.net"]}, SENDER, None),
    ],
)
def test_a_staging_host_sends_no_bounce_to_an_address_that_it_may_not_mail(
    relay: Relay, staging, sender, goes_to
) -> None:
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server, **staging)
        queue(relay.spool, [BOB], sender=sender)
        run(relay)
        assert [each.to for each in notifications(server)] == ([goes_to] if goes_to else [])


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
        warning = one(server)
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
        told = one(server)
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
        warning = one(server)
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
        fields = one(server).recipients[BOB]
    assert fields["Diagnostic-Code"].startswith("X-mailer; ")
    assert "Connection refused" in fields["Diagnostic-Code"]
    assert "Remote-MTA" not in fields


def test_mail_refused_because_of_the_ehlo_reply_is_reported_as_our_own_conclusion(relay: Relay) -> None:
    large = b"Subject: hello\r\n\r\n" + b"hello\r\n" * 1000
    with Server(extensions=("SIZE 6000",)) as server:
        sending(relay, server)
        submit(relay.spool, Recipient(BOB), message=large, ret="HDRS")
        run(relay)
        bounce = one(server)
    text = f"552 5.3.4 message of {len(large)} octets exceeds the limit of 6000 at {at(server)}"
    assert bounce.recipients[BOB]["Diagnostic-Code"] == f"X-mailer; {text}"
    assert bounce.recipients[BOB]["Status"] == "5.3.4"
    assert "Remote-MTA" not in bounce.recipients[BOB]
    assert "said:" not in bounce.words


def test_utf8_addresses_are_reported_in_the_forms_of_rfc_6533(relay: Relay) -> None:
    bob, sender = "bøb@bücher.example", "jürgen@example.com"
    header = "Subject: grüße\r\n".encode()
    with Server({"rcpt": per_address({bob: NEVER, ANN: NEVER})}) as server:
        sending(relay, server)
        submit(
            relay.spool,
            Recipient(bob, orcpt="utf-8;b\\x{F8}b@b+5Cx{FC}cher.example"),
            Recipient(ANN),
            message=header + b"\r\nhello\r\n",
            sender=sender,
            smtputf8=True,
        )
        run(relay)
        bounce = one(server)
        (mail,) = [each for each in server.messages if each.sender == ""]
    assert bounce.to == [sender]
    assert b" SMTPUTF8" in mail.mail_line
    assert b" BODY=8BITMIME" in mail.mail_line
    assert bounce.kind == "message/global-delivery-status"
    assert bounce.recipients[bob]["Final-Recipient"] == f"utf-8; {bob}"
    assert bounce.recipients[bob]["Original-Recipient"] == f"utf-8; {bob}"
    assert bounce.recipients[ANN]["Final-Recipient"] == f"rfc822; {ANN}"
    assert bob in bounce.words
    assert bounce.copy_kind == "message/global"
    assert bounce.copy == header + b"\r\nhello\r\n"


def test_a_bounce_is_signed_with_its_own_domains_key_and_sent_unsigned_without_one(
    relay: Relay,
) -> None:
    for domain in ("example.com", "relay.example.com"):
        assert relay.mailer("dkim", "keygen", "--domain", domain).returncode == 0
    both = [{"domain": "example.com"}, {"domain": "relay.example.com"}]
    message = b"From: <app@example.com>\r\n\r\nhello\r\n"
    for keys in (both, both[:1]):
        with Server({"rcpt": per_address({BOB: NEVER})}) as server:
            sending(relay, server, dkim={"enabled": True, "keys": keys, "onMissingKey": "hold"})
            submit(relay.spool, Recipient(BOB), message=message)
            run(relay)
            (sent,) = server.messages
        assert (b" d=relay.example.com;" in sent.body) == (keys == both)
        assert sent.body.startswith((b"DKIM-Signature: ", b"Received: by relay.example.com"))


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
        bounce = one(server)
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


def test_a_failure_is_reported_although_the_message_is_held_for_an_uncertain_recipient(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER}), "dot": [DROP, None]}) as server:
        sending(relay, server, uncertain="hold")
        message = queue(relay.spool, [ANN, BOB])
        run(relay)
        assert list(one(server).recipients) == [BOB]
        left = found(relay.spool, message)
        assert left is not None
        assert (left.place, left.statuses) == ("hold", {ANN: "uncertain", BOB: "bounced"})
        relay.mailer("spool", "release", message)
        run(relay)
        assert len(notifications(server)) == 1
    assert relay.mailer("spool", "fsck").stdout == ""


def test_a_retried_recipient_that_is_refused_again_is_not_reported_again(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        message = queue(relay.spool, [ANN, BOB])
        run(relay)
        relay.mailer("spool", "retry", message)
        run(relay)
        assert asked(server, BOB) == 2
        assert [list(each.recipients) for each in notifications(server)] == [[BOB]]
    assert list(told(relay.spool, message).values()) == [[BOB]]
    assert not untold(walk(relay.spool, ("failed",)))


def test_a_retried_recipient_that_was_sent_is_reported_only_to_senders_that_asked(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER, EVE: NEVER})}, extensions=NO_DSN) as server:
        sending(relay, server)
        message = submit(relay.spool, Recipient(BOB), Recipient(EVE, notify="SUCCESS,FAILURE"))
        run(relay)
        server.script.clear()
        relay.mailer("spool", "retry", message)
        run(relay)
        actions = [{a: r["Action"] for a, r in each.recipients.items()} for each in notifications(server)]
    assert actions == [{BOB: "failed", EVE: "failed"}, {EVE: "relayed"}]


@pytest.mark.parametrize("how", ["retry-failed", "retry --all"])
def test_trying_waiting_mail_every_hour_reopens_no_refused_recipient_and_notifies_nobody_twice(
    relay: Relay, how: str
) -> None:
    """Nor does it begin the maximum age anew, or mail tried every hour would never be given up."""
    with Server({"rcpt": per_address({BOB: NEVER, EVE: LATER})}) as server:
        sending(relay, server)
        message = queue(relay.spool, [ANN, BOB, EVE])
        run(relay)
        for attempt in (2, 3):
            if how == "retry-failed":
                with relay.monitor():
                    assert post(relay.http_port, "/admin/retry-failed").status == 200
                    until(lambda attempt=attempt: attempts(relay, message) == attempt, "another attempt")
            else:
                assert relay.mailer("spool", *how.split()).returncode == 0
                run(relay)
        assert [asked(server, who) for who in (ANN, BOB, EVE)] == [1, 1, 3]
        assert one(server).recipients.keys() == {BOB}
        # The host was off for a month, as its operator knows.
        assert relay.mailer("spool", "trust-clock", under=faketime("+31d")).returncode == 0
        run(relay, "+31d")
        run(relay, "+32d")
        assert [list(each.recipients) for each in notifications(server)] == [[BOB], [EVE]]
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses) == ("failed", {ANN: "sent", BOB: "bounced", EVE: "expired"})


def asked(server: Server, address: str) -> int:
    """How often the server was offered mail for an address."""
    to = f"RCPT TO:<{address}>".encode()
    return sum(line.startswith(to) for session in server.sessions for line in session.commands)


def attempts(relay: Relay, message: str) -> int:
    left = found(relay.spool, message)
    return left.kinds.count("deferred") if left and left.place == "retry" else 0


def test_a_message_from_a_wrong_clock_has_its_bounce_too(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        queue(relay.spool, [BOB], received=253_402_300_000.0)
        run(relay)
        assert one(server).message["Arrival-Date"].startswith("Fri, 31 Dec 9999")


def test_thousands_of_refusals_make_one_notification_that_names_all_to_programs(relay: Relay) -> None:
    many = [f"user{number}@example.net" for number in range(3000)]
    with Server({"rcpt": lambda _, line: "550 5.1.1 no" if b"example.net" in line else None}) as server:
        sending(relay, server, batchSize=1000)
        queue(relay.spool, many)
        run(relay)
        bounce = one(server)
    assert list(bounce.recipients) == many
    assert "and 2900 more" in bounce.words
    assert len(bounce.words) < 20_000


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_disk_failure_during_a_bounce_leads_to_exactly_one_notification(
    relay: Relay, tmp_path: Path, number: int
) -> None:
    """The message waits in `cur/`, its outcome on record; nobody is mailed again, the sender is told once."""
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        message = queue(relay.spool, [ANN, BOB])
        fault = f"inject=fsync,fdatasync:error=EIO:when={number}"
        relay.mailer_send("--once", under=(tracer(), "-f", "-o", str(tmp_path / "trace"), "-e", fault))
        run(relay)
        assert [each.recipients.keys() for each in notifications(server)] == [{BOB}]
        assert [to for to, _ in server.delivered() if to != SENDER] == [ANN]
    ((notice, whom),) = told(relay.spool, message).items()
    assert whom == [BOB]
    assert walk(relay.spool, ("new", "cur", "retry", "failed", "sent")).keys() == {message}
    assert notice not in walk(relay.spool, ("tmp",))
