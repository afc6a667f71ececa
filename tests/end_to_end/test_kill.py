"""kill -9 of the receiver and of the runner, at random moments under load, again and again.

Nothing acknowledged is lost, nothing refused is sent, every failure has its bounce, and nothing arrives twice
but what the spool file of a dead runner said was just being handed over. Two spools of fifty rounds each, so
that workers share them; in MAILER_KILL_SPOOLS many more.
"""

import os
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from incidents.kill_lab import LARGEST, Books, Client, Deaths, violations
from spools.walk import untold, walk
from testbed.relay import Relay
from testbed.smtp_sink import SmtpSink
from testbed.waiting import until

ROUNDS = 50
CLIENTS = 3
SESSIONS = 4
"""`sending.maxSessionsPerHop`: transactions that can be past their dot when the runner dies."""


@pytest.mark.parametrize("seed", range(1, int(os.environ.get("MAILER_KILL_SPOOLS", "2")) + 1))
def test_sudden_deaths_lose_nothing_and_double_only_what_was_being_handed_over(
    seed: int, relay: Relay, smtp_sink: SmtpSink, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    books, deaths = Books(tmp_path / "acknowledged.jsonl"), Deaths()
    relay.configure(
        {
            "forwardSMTP": True,
            "forwardProviders": [{"host": smtp_sink.host, "port": smtp_sink.port}],
            "batchSize": 2,
            "batchDelay": 0,
            "bounce": "sender",
            "maxMessageSize": LARGEST,
            "sending": {"maxSessionsPerHop": SESSIONS},
        }
    )
    relay.mailer_send("--once")  # makes the spool
    clients = [Client(f"s{seed}c{number}", relay, books, chance.getrandbits(32)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    with ExitStack() as ending:
        for client in clients:
            ending.callback(client.join)
            ending.callback(client.stop.set)
        for _ in range(ROUNDS):
            _one_round(relay, smtp_sink, books, chance)
            deaths.look(relay.spool)
    assert relay.mailer_send("--once").returncode == 0
    left = walk(relay.spool)
    assert {file.place for file in left.values()} <= {"failed"}, "the next run drains the spool at once"
    assert untold(left) == []
    arrivals = smtp_sink.arrivals()
    assert list(violations(books, deaths, arrivals)) == []
    assert deaths.most_at_once <= SESSIONS
    sys.stdout.write(
        f"seed {seed}: {len(books.submitted)} submitted, {len(books.acknowledged)} acknowledged, "
        f"{len(books.refused)} refused, {len(left)} bounced, {len(arrivals)} transactions, "
        f"{sum(deaths.doubts.values())} in doubt at a death, {deaths.most_at_once} at once\n"
    )


def _one_round(relay: Relay, sink: SmtpSink, books: Books, chance: random.Random) -> None:
    """Start both, let both work, kill both in either order at a moment of the dice's choosing."""

    def begun() -> int:
        """How many transactions smtp-sink has seen begin, which is when it makes a file."""
        books.waiting = _count(relay.spool / "new")
        return _count(sink._dumps)

    acknowledged, before = len(books.acknowledged), begun()
    with relay.serve() as receiver, relay.watch() as runner:
        wanted, transactions = chance.randrange(1, 10), chance.randrange(1, 10)

        def both_work() -> bool:
            for process in (receiver, runner):
                assert process.running, process.output()
            return begun() >= before + transactions and len(books.acknowledged) >= acknowledged + wanted

        until(both_work, "the receiver and the runner to work")
        time.sleep(chance.random() / 50)  # the moment of death, not a wait for anything
        for process in chance.sample((receiver, runner), 2):
            process.kill()


def _count(directory: Path) -> int:
    return sum(1 for _ in directory.iterdir())
