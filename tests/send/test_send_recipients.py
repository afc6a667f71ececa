"""Each recipient of a message has its own fate: nobody is sent to twice, nobody waits for another."""

import ssl
from collections import Counter
from itertools import product

import pytest
import trustme
from outbound.bounces import notifications
from outbound.hostile import DROP, Server, per_address
from outbound.sending import MESSAGE, at, forward_to, found, outcomes, queue
from spools.walk import untold, walk
from testbed.faketime import faketime
from testbed.ports import LOOPBACK
from testbed.relay import Relay

ANN, BOB, EVE = "ann@example.net", "bob@example.net", "eve@example.org"
LATER, NEVER = "450 4.2.2 mailbox full", "550 5.1.1 no such user"
ANSWERS = {"sent": "250 2.1.5 ok", "deferred": LATER, "bounced": NEVER}
NEXT_RUN = faketime("+3m")
"""After the first pause of `retry.schedule`, rounded up to the minute."""


def plain_or_tls(name: str) -> ssl.SSLContext | None:
    if name == "plain":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


@pytest.mark.fault_row(17)
@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
@pytest.mark.parametrize("cover", ["plain", "TLS"])
def test_each_of_three_recipients_gets_what_its_own_reply_says_in_all_27_mixes(
    relay: Relay, extensions: tuple[str, ...], cover: str
) -> None:
    """2xx is marked, 4xx is retried alone, 5xx is bounced once and never tried again.

    All recipients share a domain. Five mails in a row with neither sender nor domain in common and the same
    refusal would be the provider's trouble, and sessions side by side bring these mixes in any order.
    """
    mixes = [
        {f"{how}{number}-{mix}@example.net": how for number, how in enumerate(fates)}
        for mix, fates in enumerate(product(ANSWERS, repeat=3))
    ]
    answers = {who: ANSWERS[how] for fates in mixes for who, how in fates.items()}
    with Server({"rcpt": per_address(answers)}, extensions=extensions, tls=plain_or_tls(cover)) as server:
        provider = {"host": LOOPBACK, "port": server.port, "insecureSkipVerify": True}
        relay.configure(forward_to(bounce="sender", forwardProviders=[provider]))
        ids = [queue(relay.spool, list(fates), sender=sender_of(mix)) for mix, fates in enumerate(mixes)]
        assert relay.mailer_send("--once").returncode == 0
        got = Counter(delivery for delivery in server.delivered() if delivery[0] in answers)
        assert got == Counter((who, MESSAGE) for who, reply in answers.items() if reply.startswith("250"))
        bounces = {tuple(each.to): each for each in notifications(server)}
        assert len(bounces) == len(notifications(server))
        assert {bool(session.tls) for session in server.sessions} == {cover == "TLS"}
        assert not any(session.hasty for session in server.sessions)
    left = walk(relay.spool)
    assert untold(left) == []
    for mix, (message, fates) in enumerate(zip(ids, mixes, strict=True)):
        refused = {who for who, how in fates.items() if how == "bounced"}
        if set(fates.values()) == {"sent"}:
            assert message not in left
        else:
            assert left[message].statuses == fates
            assert left[message].place == ("retry" if "deferred" in fates.values() else "failed")
        bounce = bounces.pop((sender_of(mix),), None)
        assert (set(bounce.recipients) if bounce else set()) == refused
        for who in refused:
            assert bounce
            fields = bounce.recipients[who]
            assert (fields["Action"], fields["Status"]) == ("failed", "5.1.1")
            assert fields["Diagnostic-Code"] == f"smtp; {NEVER}"
            assert f"<{who}> {at(server)} said: {NEVER}" in bounce.words
    assert not bounces
    with Server() as server:
        relay.configure(forward_to(server))
        assert relay.mailer_send("--once", under=NEXT_RUN).returncode == 0
        assert sorted(server.delivered()) == sorted(
            (who, MESSAGE) for who, reply in answers.items() if reply == LATER
        )
    assert {file.place for file in walk(relay.spool).values()} == {"failed"}


def sender_of(mix: int) -> str:
    return f"sender{mix}@example.com"


def test_the_deferred_recipient_is_retried_alone(relay: Relay) -> None:
    replies = per_address({BOB: LATER, EVE: NEVER})
    with Server({"rcpt": replies}) as first, Server() as second:
        relay.configure(forward_to(first))
        message = queue(relay.spool, [ANN, BOB, EVE])
        relay.mailer_send()
        relay.configure(forward_to(second))
        assert relay.mailer_send("--once", under=NEXT_RUN).returncode == 0
        assert second.delivered() == [(BOB, MESSAGE)]
        commands = [line for session in second.sessions for line in session.commands]
        assert [line for line in commands if line.startswith(b"RCPT")] == [b"RCPT TO:<bob@example.net>"]
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "failed"
    assert left.statuses == {ANN: "sent", BOB: "sent", EVE: "bounced"}


def test_the_journal_quotes_each_reply_and_its_hop(relay: Relay) -> None:
    with Server({"rcpt": per_address({BOB: LATER, EVE: NEVER})}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, [ANN, BOB, EVE])
        relay.mailer_send()
    left = found(relay.spool, message)
    assert left is not None
    told = {event["to"][0]: event for event in left.events[2:]}
    assert {who: (event["reply"], event["hop"]) for who, event in told.items()} == {
        ANN: ("250 2.0.0 queued", at(server)),
        BOB: (LATER, at(server)),
        EVE: (NEVER, at(server)),
    }
    assert {who: event.get("scope", "") for who, event in told.items()} == {
        ANN: "",
        BOB: "recipient",
        EVE: "recipient",
    }
    assert [who for who, event in told.items() if "next" in event] == [BOB]


def test_batches_have_batch_size_recipients_and_batch_delay_between_them(relay: Relay) -> None:
    recipients = [f"user{number}@example.net" for number in range(7)]
    with Server() as server:
        relay.configure(forward_to(server, batchSize=3, batchDelay=50))
        message = queue(relay.spool, recipients)
        assert relay.mailer_send().returncode == 0
        batches = [recipients[:3], recipients[3:6], recipients[6:]]
        assert [mail.recipients for mail in server.messages] == batches
        assert {mail.body for mail in server.messages} == {MESSAGE}
    assert found(relay.spool, message) is None


def test_a_batch_that_fails_leaves_the_batches_before_it_sent(relay: Relay) -> None:
    recipients = [f"user{number}@example.net" for number in range(6)]
    with Server({"mail": ["250 ok", DROP], "connect": [None, DROP]}) as server:
        relay.configure(forward_to(server, batchSize=2))
        message = queue(relay.spool, recipients)
        relay.mailer_send()
        assert [mail.recipients for mail in server.messages] == [recipients[:2]]
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert left.statuses == dict.fromkeys(recipients[:2], "sent") | dict.fromkeys(recipients[2:], "deferred")


def test_a_message_over_the_hops_size_is_not_even_offered(relay: Relay) -> None:
    with Server(extensions=("PIPELINING", "SIZE 1000")) as small, Server() as large:
        body = MESSAGE + b"x" * 70 + b"\r\n" * 1000
        relay.configure(forward_to(small, large))
        big, little = queue(relay.spool, [ANN], body), queue(relay.spool, [BOB])
        assert relay.mailer_send().returncode == 0
        assert small.delivered() == [(BOB, MESSAGE)]
        assert large.delivered() == [(ANN, body)]
    assert found(relay.spool, big) is None
    assert found(relay.spool, little) is None


def test_a_message_over_every_hops_size_fails_and_says_so(relay: Relay) -> None:
    with Server(extensions=("SIZE 1000",)) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, [ANN], MESSAGE + b"x\r\n" * 1000)
        assert relay.mailer_send().returncode == 0
        assert server.messages == []
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "failed"
    assert outcomes(left) == [("bounced", (ANN,))]
    assert "exceeds the limit of 1000" in str(left.events[-1]["reply"])


def test_delivered_mail_is_archived_by_day_when_all_mail_is_to_be_kept(relay: Relay) -> None:
    with Server() as server:
        relay.configure(forward_to(server, security={"logAllEmails": True}))
        message = queue(relay.spool, [ANN, BOB])
        relay.mailer_send("--once", under=faketime("2026-11-30 12:00:00"))
    copy = found(relay.spool, message)
    assert copy is not None
    assert (copy.place, copy.bucket) == ("sent", "20261130")
    assert copy.message == MESSAGE
    assert copy.statuses == {ANN: "sent", BOB: "sent"}
