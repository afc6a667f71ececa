"""How our figures change as the queue and the number of clients grow, and which do not."""

import smtplib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.ports import LOOPBACK

from bench.costs import peak_memory
from bench.deep import fill_retry
from bench.load import RECIPIENT, SENDER, Load, Sink
from bench.servers import Mailer
from bench.works import EndToEnd, directory_in

DEPTHS = (10, 1_000, 100_000, 1_000_000)
CLIENTS = (1, 16, 256, 2_000)
IDLE_CEILING = 0.35
"""Seconds of a whole `mailer-send --once` over any number of messages that are not due."""
FRESH_CEILING = 1.0
"""Seconds from a new message's acknowledgement to its arrival at the next hop, behind any queue."""
MEMORY_CEILING = 150e6
"""Bytes of a runner over a million messages."""


@dataclass(frozen=True, slots=True)
class Point:
    """One figure at one size."""

    figure: str
    unit: str
    at: int
    value: float
    ceiling: float | None = None


Say = Callable[[str], None]


def by_depth(parent: Path, depths: tuple[int, ...], say: Say) -> Iterator[Point]:
    """The figures of a spool with so many deferred messages that are not due."""
    for depth in depths:
        say(f"filling a spool with {depth:,} deferred messages")
        with directory_in(parent) as directory, Sink(directory) as sink:
            mailer = Mailer(directory, onward=sink.port)
            fill_retry(mailer.relay.spool, depth)
            say(f"measuring behind {depth:,} deferred messages")
            yield Point("idle run of mailer-send --once", "s", depth, _idle(mailer), IDLE_CEILING)
            yield Point("mailer spool ls", "s", depth, mailer.list_into(directory / "listing").seconds)
            load = Load(2000, reuse=True)
            with mailer.accepting() as running:
                yield Point("accept", "messages/s", depth, load.messages / load.submit(running.port))
            delivered = mailer.deliver(sink, load.messages)
            yield Point("deliver", "messages/s", depth, load.messages / delivered.seconds)
            yield from _watching(mailer, sink, load.messages, depth)


def _idle(mailer: Mailer) -> float:
    def once() -> float:
        began = time.perf_counter()
        with mailer.run() as process:
            assert process.wait() == 0, process.output()
            return time.perf_counter() - began

    return sorted(once() for _ in range(5))[2]


def _watching(mailer: Mailer, sink: Sink, before: int, depth: int) -> Iterator[Point]:
    with (
        mailer.accepting(),
        mailer.relay.watch() as runner,
        smtplib.SMTP(LOOPBACK, mailer.relay.port) as client,
        peak_memory(runner.pid) as peak,
    ):
        delays = []
        for number in range(6):
            client.sendmail(SENDER, RECIPIENT, f"Subject: {number}\r\n\r\nfresh\r\n")
            accepted = time.perf_counter()
            sink.await_taken(before + number + 1)
            delays.append(time.perf_counter() - accepted)
    # The first one waits until the runner has started as well.
    yield Point("a fresh message's delivery", "s", depth, max(delays[1:]), FRESH_CEILING)
    yield Point("the runner's memory", "bytes", depth, float(peak.bytes), MEMORY_CEILING)


def by_clients(parent: Path, counts: tuple[int, ...], say: Say) -> Iterator[Point]:
    """The figures of accepting, and of the whole way, with so many connections at the same time."""
    for clients in counts:
        say(f"{clients:,} connections at a time")
        load = Load(max(3000, 2 * clients), clients=clients, reuse=True)
        with directory_in(parent) as directory, Mailer(directory).accepting() as running:
            yield Point("accept", "messages/s", clients, load.messages / load.submit(running.port))
        yield Point("end to end", "messages/s", clients, EndToEnd(load)(Mailer, parent).rate)
