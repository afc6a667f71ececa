"""Bounces (RFC 3464): their form, who gets them, and what NOTIFY and RET change."""

import json

import pytest
from outbound.bounces import notices_of, notifications, submit
from outbound.hostile import Server, per_address
from outbound.notifying import ANN, BOB, EVE, LATER, NEVER, NO_DSN, only_notification, run, sending
from outbound.sending import MESSAGE, SENDER, at, found, queue
from spools.walk import walk
from testbed.relay import Relay
from testbed.waiting import until

from mailer.mail.envelope import Recipient


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
        bounce = only_notification(server)
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
        bounce = only_notification(server)
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
    ((notice, whom),) = notices_of(relay.spool, message).items()
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
        bounce = only_notification(server)
    assert bounce.copy_kind == kind
    assert bounce.copy == (message if kind == "message/rfc822" else header)
    assert len(bounce.raw) < len(bounce.copy) + 4000


def test_a_header_without_end_comes_back_cut_after_a_whole_line(relay: Relay) -> None:
    message = b"Subject: hello\r\n" + b"X-Long: %s\r\n" % (b"y" * 900) * 300
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        submit(relay.spool, Recipient(BOB), message=message)
        run(relay)
        bounce = only_notification(server)
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
        bounce = only_notification(server)
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
        bounce = only_notification(server)
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
    ((notice, _),) = notices_of(relay.spool, message).items()
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
        bounce = only_notification(server)
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


def test_a_message_from_a_wrong_clock_has_its_bounce_too(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: NEVER})}) as server:
        sending(relay, server)
        queue(relay.spool, [BOB], received=253_402_300_000.0)
        run(relay)
        assert only_notification(server).message["Arrival-Date"].startswith("Fri, 31 Dec 9999")
