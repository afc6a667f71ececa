"""Servers that misbehave at random, at any step and any number of times, until the queue is empty.

`MAILER_CAMPAIGN=200 scripts/test -k campaign` tries as many internets; CI tries two, the same each time.
"""

import os
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from outbound.hostile import DROP, EXTENSIONS, RESET, Server
from outbound.internet import Internet
from outbound.sending import PLACES, forward_to, queue
from spools.walk import walk
from testbed.faketime import faketime
from testbed.relay import Relay

CAMPAIGNS = int(os.environ.get("MAILER_CAMPAIGN", "2"))
EXCHANGERS, DOMAINS, MESSAGES, RUNS = 12, 20, 40, 200

LOSSES = [DROP, RESET]
REPLIES = [
    *("421 4.3.2 bye", "451 4.3.0 later", "452 4.3.1 full", "450 4.2.1 x", "452 4.5.3 too many"),
    *("550 5.7.1 policy", "554 5.6.0 no", "620 what", "354 go", "250 ok\n250 early"),
    *(b"\xff garbage\r\n", b"250 o\0k\r\n"),
]
STEPS = ("connect", "banner", "ehlo", "mail", "rcpt", "data", "dot", "after", "quit", "rset")


@dataclass
class Campaign:
    """One internet, drawn by its number."""

    draw: random.Random
    servers: list[Server] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    """Each recipient's message; nobody is a recipient of two."""
    ids: list[str] = field(default_factory=list)

    def script(self) -> dict[str, Any]:
        """Faults at half of the steps, each step's with good turns between them and after them."""
        return {step: [*self.turns(step), None] for step in STEPS if self.draw.random() < 0.5}

    def turns(self, step: str) -> list[Any]:
        count = self.draw.randint(1, 25)
        return [self.fault(step) if self.draw.random() < 0.5 else None for _ in range(count)]

    def fault(self, step: str) -> Any:
        return self.draw.choice(LOSSES if step in {"connect", "after"} else LOSSES + REPLIES)

    def server(self, internet: Internet, host: str) -> Server:
        pipelining = self.draw.random() < 0.7
        extensions = [each for each in EXTENSIONS if pipelining or each != "PIPELINING"]
        self.servers.append(internet.server(host, self.script(), extensions=extensions))
        return self.servers[-1]

    def queue_mail(self, relay: Relay) -> None:
        for number in range(MESSAGES):
            domains = self.draw.sample(range(DOMAINS), self.draw.randint(1, 3))
            count = self.draw.randint(1, 7)
            to = [f"r{number}x{n}@d{self.draw.choice(domains)}.test" for n in range(count)]
            filler = b"x\r\n" * self.draw.choice([1, 1000, 70_000])
            body = b"Subject: %d\r\n\r\n.dot\r\n%b" % (number, filler)
            self.bodies |= dict.fromkeys(to, body)
            self.ids.append(queue(relay.spool, to, body))


@contextmanager
def campaign(relay: Relay, number: int) -> Iterator[Campaign]:
    """Every second one has providers as well, every third one runners that are killed."""
    made = Campaign(random.Random(number))
    with Internet.of({}) as internet, ExitStack() as providers:
        hosts = range(1, EXCHANGERS + 1)
        for host in hosts:
            internet.dns.zone[f"h{host}.test", "A"] = [f"127.0.4.{host}"]
            made.server(internet, f"127.0.4.{host}")
        for domain in range(DOMAINS):
            some = made.draw.sample(hosts, made.draw.randint(1, 4))
            internet.dns.zone[f"d{domain}.test", "MX"] = [
                f"{made.draw.choice([10, 20])} h{host}.test." for host in some
            ]
        smarthosts = [providers.enter_context(Server(made.script())) for _ in range(2 * (number % 2))]
        made.servers += smarthosts
        internet.dns_timeout = "10s"
        settings = internet.settings(retryCount=2 if smarthosts else 1000)
        schedule = {"schedule": ["1m"], "maxAge": "1000d"}
        relay.configure({**settings, **(forward_to(*smarthosts) if smarthosts else {}), "retry": schedule})
        relay.configure({"batchSize": 3, "security": {"logAllEmails": True}})
        made.queue_mail(relay)
        yield made


def run_until_done(relay: Relay, made: Campaign, kills: int) -> None:
    """Run every hour, the first times until it is killed."""
    for number in range(RUNS):
        doomed = ("timeout", "--signal=KILL", f"{made.draw.uniform(0.3, 0.7)}") if number < kills else ()
        done = relay.mailer_send("--once", under=(*doomed, *faketime(f"+{number}h")))
        assert doomed or done.returncode == 0
        assert "defect" not in done.stderr
        assert "Traceback" not in done.stderr
        if not walk(relay.spool, ("new", "cur", "retry")):
            return
    raise AssertionError(f"not done after {RUNS} runs")


@pytest.mark.parametrize("number", range(1, CAMPAIGNS + 1))
def test_in_every_campaign_each_recipient_gets_one_copy_or_a_refusal(relay: Relay, number: int) -> None:
    """A second copy only where the first one's fate was not known, and only to where it may be."""
    kills = 2 if number % 3 == 2 else 0
    with campaign(relay, number) as made:
        run_until_done(relay, made, kills)
    handed_over: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    for at, server in enumerate(made.servers):
        for message in server.messages:
            if re.match("[45]", message.reply):
                continue
            for recipient in message.recipients:
                assert message.body == made.bodies[recipient]
                handed_over[recipient].append((at, message.accepted))
    files = walk(relay.spool, PLACES)
    assert files.keys() == set(made.ids)
    for found in files.values():
        for recipient, status in found.statuses.items():
            copies = handed_over[recipient]
            accepted = sum(accepted for _, accepted in copies)
            assert status in {"sent", "bounced"}
            assert accepted == (status == "sent") or (kills and accepted <= 1 + kills), (recipient, copies)
            assert len({at for at, _ in copies}) <= 1, (recipient, copies, found.events)
            assert len(copies) < 2 or {"committing"} <= set(found.kinds)
