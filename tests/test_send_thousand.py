"""One message with 1,000 recipients over 200 domains, a third of which fail in different ways."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from bounces import notifications, submit
from hostile import Server, per_address
from sending import SENDER, found
from spool_walk import untold, walk
from test_send_direct import Internet
from testbed.relay import Relay

from mailer.mail.envelope import Recipient

DOMAINS, EACH, EXCHANGERS = 200, 5, 8
NEXT_RUN = ("faketime", "-f", "+3m")

# Domains whose number leaves one of these remainders by 12 fail, each in its way; the others take their mail.
NO_SUCH_DOMAIN, NULL_MX, NOT_FROM_YOU, DNS_BROKEN = 0, 1, 2, 3
REFUSED_ONE_BY_ONE = 4
"""Domains where the recipients differ: two are taken, one is unknown, one full for ever, one full for now."""
REPLIES = ("250 2.1.5 ok", "250 2.1.5 ok", "550 5.1.1 unknown", "552 5.2.2 full for ever", "452 4.2.2 full")


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet.of({}) as made:
        yield made


def name(domain: int) -> str:
    return f"d{domain}.test"


def address(domain: int, number: int) -> str:
    return f"user{number}@{name(domain)}"


def fate(domain: int, number: int) -> tuple[str, str]:
    """A recipient's status after the first run, and the Status that the sender is told; empty: nothing."""
    whole_domain = {
        NO_SUCH_DOMAIN: ("bounced", "5.1.2"),
        NULL_MX: ("bounced", "5.1.10"),
        NOT_FROM_YOU: ("bounced", "5.7.1"),
        DNS_BROKEN: ("deferred", ""),
    }
    if domain % 12 != REFUSED_ONE_BY_ONE:
        return whole_domain.get(domain % 12, ("sent", ""))
    reply = REPLIES[number]
    status = {"2": "sent", "4": "deferred", "5": "bounced"}[reply[0]]
    return status, reply.split()[1] if status == "bounced" else ""


def zone() -> Mapping[tuple[str, str], list[str]]:
    records: dict[tuple[str, str], list[str]] = {
        (f"mx{number}.test", "A"): [f"127.0.1.{number + 1}"] for number in range(EXCHANGERS)
    }
    for domain in range(DOMAINS):
        if domain % 12 != NO_SUCH_DOMAIN:
            target = "0 ." if domain % 12 == NULL_MX else f"10 mx{domain % EXCHANGERS}.test."
            records[name(domain), "MX"] = [target]
    records["example.com", "MX"] = ["10 mx0.test."]
    return records


def test_each_recipient_has_the_right_state_and_the_sender_one_bounce(
    relay: Relay, internet: Internet
) -> None:
    fates = {address(d, n): fate(d, n) for d in range(DOMAINS) for n in range(EACH)}
    assert len(fates) == 1000
    assert 300 < sum(status != "sent" for status, _ in fates.values()) < 400
    internet.dns.zone |= zone()
    internet.dns.broken_for = {(name(d), "MX") for d in range(DOMAINS) if d % 12 == DNS_BROKEN}
    answers = {
        address(d, n): "550 5.7.1 not from you" if d % 12 == NOT_FROM_YOU else REPLIES[n]
        for d in range(DOMAINS)
        for n in range(EACH)
        if d % 12 in {NOT_FROM_YOU, REFUSED_ONE_BY_ONE}
    }
    servers = [
        internet.server(f"127.0.1.{number + 1}", {"rcpt": per_address(answers)})
        for number in range(EXCHANGERS)
    ]
    relay.configure(internet.settings() | {"bounce": "sender"})
    message = submit(relay.spool, *map(Recipient, fates))
    done = relay.mailer_send("--once")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses) == ("retry", {who: status for who, (status, _) in fates.items()})
    sent = [who for who, (status, _) in fates.items() if status == "sent"]
    assert Counter(delivered(servers)) == Counter(sent)
    (bounce,) = [each for server in servers for each in notifications(server)]
    assert {who: fields["Status"] for who, fields in bounce.recipients.items()} == {
        who: code for who, (_, code) in fates.items() if code
    }
    # What was full or broken is well again: nothing more is refused, so nothing more is told.
    internet.dns.broken_for = set()
    answers |= {who: "250 2.1.5 ok" for who, (status, _) in fates.items() if status == "deferred"}
    assert relay.mailer_send("--once", under=NEXT_RUN).returncode == 0
    assert Counter(delivered(servers)) == Counter(who for who, (_, code) in fates.items() if not code)
    assert sum(len(notifications(server)) for server in servers) == 1
    ended = walk(relay.spool)
    assert (ended.keys(), untold(ended), ended[message].place) == ({message}, [], "failed")
    assert ended[message].statuses == {who: "bounced" if code else "sent" for who, (_, code) in fates.items()}


def delivered(servers: list[Server]) -> list[str]:
    return [who for server in servers for who, _ in server.delivered() if who != SENDER]
