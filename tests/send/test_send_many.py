"""Many runners on one spool, and one message to many."""

import random
import subprocess
from collections import Counter
from typing import Any

import pytest
from outbound.bounces import notifications
from outbound.hostile import DROP
from outbound.internet import Internet
from outbound.sending import found, queue
from spools.walk import walk
from testbed.faketime import faketime
from testbed.relay import Relay, mailer_send_command
from testbed.smtp_sink import SmtpSink

RUNNERS = 64
MESSAGES = 200


@pytest.mark.fault_row(11)
def test_sixty_four_runners_on_one_spool_send_each_message_once(relay: Relay, smtp_sink: SmtpSink) -> None:
    providers = [{"host": smtp_sink.host, "port": smtp_sink.port}]
    relay.configure({"forwardSMTP": True, "forwardProviders": providers})
    addresses = [f"user{number}@example.net" for number in range(MESSAGES)]
    for address in addresses:
        queue(relay.spool, [address])
    command = [*mailer_send_command(), "--once", "--config", str(relay.config)]
    runners = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(RUNNERS)]
    ends = [(runner.communicate(timeout=300)[1], runner.returncode) for runner in runners]
    assert set(ends) == {(b"", 0)}
    arrived = Counter(arrival.recipients for arrival in smtp_sink.arrivals())
    assert arrived == Counter((address,) for address in addresses)
    assert walk(relay.spool) == {}


# A third of the domains fail, in eleven ways: what each server does, and what becomes of its recipients.
WAYS: dict[str, tuple[dict[str, Any] | None, str]] = {
    "unknown": ({"rcpt": "550 5.1.1 no such user"}, "bounced"),
    "full": ({"rcpt": "452 4.2.2 mailbox full"}, "deferred"),
    "content": ({"dot": "554 5.6.0 not this"}, "bounced"),
    "busy": ({"dot": "451 4.3.2 later"}, "deferred"),
    "sender": ({"mail": "550 5.1.8 bad sender"}, "bounced"),
    "lost": ({"dot": DROP}, "uncertain"),
    "hangs-up": ({"rcpt": DROP}, "deferred"),
    "refuses": (None, "deferred"),
    "null": (None, "bounced"),
    "nowhere": (None, "bounced"),
    "servfail": (None, "deferred"),
}
CODES = {"unknown": "5.1.1", "content": "5.6.0", "sender": "5.1.8", "null": "5.1.10", "nowhere": "5.1.2"}
"""What the notification says of those that bounced."""
FAILING, DOMAINS, EACH = 66, 200, 5


def test_a_thousand_recipients_over_200_domains_each_end_as_their_own_domain_has_it(relay: Relay) -> None:
    """A third of the domains fail; the sender is told once, of all who were refused and of nobody else."""
    ways = list(WAYS)
    with Internet.of({}) as internet:
        good = internet.server("127.0.3.100")
        servers = {
            way: internet.server(f"127.0.3.{n}", script)
            for n, (way, (script, _)) in enumerate(WAYS.items(), start=1)
            if script
        }
        fates: dict[str, str] = {}
        codes: dict[str, str] = {}
        for number in range(DOMAINS):
            domain = f"d{number}.test"
            way = ways[number % len(ways)] if number < FAILING else ""
            host = servers[way].host if way in servers else "127.0.3.99" if way else good.host
            if way == "null":
                internet.dns.zone[domain, "MX"] = ["0 ."]
            elif way == "servfail":
                internet.dns.broken_for.add((domain, "MX"))
            elif way != "nowhere":
                internet.dns.zone[domain, "MX"] = [f"10 mx.{domain}."]
                internet.dns.zone[f"mx.{domain}", "A"] = [host]
            fates |= {f"r{n}@{domain}": WAYS[way][1] if way else "sent" for n in range(EACH)}
            codes |= {f"r{n}@{domain}": CODES[way] for n in range(EACH) if way in CODES}
        internet.dns.zone["example.com", "A"] = ["127.0.3.101"]
        sender = internet.server("127.0.3.101")
        to = list(fates)
        random.Random(4).shuffle(to)
        relay.configure(internet.settings() | {"bounce": "sender"})
        message = queue(relay.spool, to)
        assert relay.mailer_send("--once").returncode == 0
        left = found(relay.spool, message)
        assert left is not None
        assert left.statuses == fates
        # The wire agrees: each copy once, to whom it was for.
        taken = [to for server in (good, *servers.values()) for to, _ in server.delivered()]
        assert sorted(taken) == sorted(address for address, fate in fates.items() if fate == "sent")
        # What failed for now goes well at the next attempt, and what is done stays as it is.
        for server in servers.values():
            server.script.clear()
        internet.dns.broken_for.clear()
        for number in range(DOMAINS):
            internet.dns.zone.setdefault((f"d{number}.test", "MX"), [f"10 mx.d{number}.test."])
            internet.dns.zone.setdefault((f"mx.d{number}.test", "A"), [good.host])
        internet.server("127.0.3.99")
        assert relay.mailer_send("--once", under=faketime("+3m")).returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses) == (
        "failed",
        {address: "bounced" if fate == "bounced" else "sent" for address, fate in fates.items()},
    )
    [notification] = notifications(sender)
    assert notification.to == ["app@example.com"]
    assert {who: fields["Status"] for who, fields in notification.recipients.items()} == codes
