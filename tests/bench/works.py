"""The works: what each contestant is measured at, from a fresh directory to a figure.

A server that loses mail is not fast: `Accept` counts the files in the queue afterwards where it can, and the
works that deliver end when the next hop has counted every message.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed.ports import free_port

from bench.costs import peak_memory, syncs, traced
from bench.deep import fill_postfix, fill_retry
from bench.load import RECIPIENT, Load, Sink
from bench.others import ACCEPTING, SENDING, US_AND_POSTFIX
from bench.servers import LOGIN, Accepting, Contestant, Mailer, OfPostfix, Queueing, Sending, Took


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measurement gave; what was not measured is None."""

    rate: float
    """In the work's unit a second, the more the better."""
    processor: float | None = None
    """Seconds of processor time of the server for one unit."""
    memory: int | None = None
    """Bytes, at most, of all its processes (PSS)."""
    syncs: float | None = None
    """System calls per message that make data durable."""

    @classmethod
    def of(cls, amount: float, took: Took, memory: int | None = None) -> "Sample":
        """Args: amount: what was done, in the work's unit."""
        return cls(amount / took.seconds, took.processor / amount, memory)


Measure = Callable[[type[Contestant], Path], Sample]


@contextmanager
def directory_in(parent: Path) -> Iterator[Path]:
    """A fresh one, gone afterwards, so that no measurement finds what another left."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-") as name:
        yield Path(name)


@dataclass(frozen=True, slots=True)
class Accept:
    """Take mail in; nothing is sent."""

    load: Load
    watch_memory: bool = False

    def __call__(self, kind: type[Contestant], parent: Path) -> Sample:
        with directory_in(parent) as directory:
            server = kind(directory, login=self.load.login is not None)
            assert isinstance(server, Accepting)
            with (
                server.accepting() as running,
                peak_memory(running.pid, wanted=self.watch_memory) as peak,
            ):
                before = running.processor
                seconds = self.load.submit(running.port)
                took = Took(seconds, running.processor - before)
                if isinstance(server, Queueing):
                    assert server.queued() == self.load.messages, "mail was acknowledged and is not there"
        large = self.load.size >= 2**20
        amount = self.load.messages * (self.load.size / 1e6 if large else 1)
        return Sample.of(amount, took, peak.bytes or None)


@dataclass(frozen=True, slots=True)
class Durability:
    """Count what makes mail durable while a little is taken in."""

    load: Load

    def __call__(self, kind: type[Contestant], parent: Path) -> Sample:
        with directory_in(parent) as directory:
            summary = directory / "syscalls"
            server = kind(directory, login=self.load.login is not None)
            assert isinstance(server, Accepting)
            with server.accepting(under=traced(summary)) as running:
                self.load.submit(running.port)
            return Sample(0, syncs=syncs(summary) / self.load.messages)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send a queue to one next hop."""

    messages: int
    runners: int = 1
    """Of ours; the others have one queue manager."""
    sign: bool = False

    def __call__(self, kind: type[Contestant], parent: Path) -> Sample:
        with directory_in(parent) as directory, Sink(directory) as sink:
            server = kind(directory, sign=self.sign, onward=sink.port)
            assert isinstance(server, Sending)
            messages = min(self.messages, server.most)
            server.fill(messages)
            runners = self.runners if isinstance(server, Mailer) else 1
            return Sample.of(messages, server.deliver(sink, messages, runners))


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """Take mail in and pass it on at the same time, until the next hop has the last message."""

    load: Load
    sign: bool = False
    watch_memory: bool = False

    def __call__(self, kind: type[Contestant], parent: Path) -> Sample:
        with directory_in(parent) as directory, Sink(directory) as sink:
            server = kind(directory, login=self.load.login is not None, sign=self.sign, onward=sink.port)
            assert isinstance(server, Accepting)
            with (
                server.relaying() as running,
                peak_memory(running.pid, wanted=self.watch_memory) as peak,
            ):
                before = running.processor
                seconds = self.load.submit(running.port, also=lambda: sink.await_taken(self.load.messages))
                took = Took(seconds, running.processor - before)
        return Sample.of(self.load.messages, took, peak.bytes or None)


_OUR_REASON, _POSTFIXS_REASON = "451 4.7.1 Greylisted", "Connection refused"
"""Why what lies in a deep queue was deferred."""


@dataclass(frozen=True, slots=True)
class Listing:
    """List a deep queue of deferred mail, to its last line."""

    messages: int

    def __call__(self, kind: type[Contestant], parent: Path) -> Sample:
        with directory_in(parent) as directory:
            # Into a file: what a reader does with it is not measured.
            printed = directory / "listing"
            if issubclass(kind, Mailer):
                mailer = kind(directory)
                fill_retry(mailer.relay.spool, self.messages)
                took, reason = mailer.list_into(printed), _OUR_REASON
            else:
                # Nothing listens there, so that what it lists is deferred for a reason, as ours is.
                server = OfPostfix(directory, onward=free_port())
                with server.relaying() as running:
                    Load(1).submit(running.port)
                    fill_postfix(server, self.messages)
                    took, reason = server.list_into(printed), _POSTFIXS_REASON
            text = printed.read_text()
        for shown in (RECIPIENT, reason):
            listed = text.count(shown)
            assert listed >= self.messages, f"{listed} of {self.messages} were listed with {shown}"
        return Sample.of(self.messages, took)


@dataclass(frozen=True, slots=True)
class Work:
    """One row of the table."""

    name: str
    unit: str
    """What is counted: messages, or MB."""
    measure: Measure
    wanted: float
    """The ratio to Postfix that is to be reached."""
    rest: Measure | None = None
    """Measures once what would disturb the clock: memory, or system calls."""
    contestants: tuple[type[Contestant], ...] = US_AND_POSTFIX


def works(scale: float) -> tuple[Work, ...]:
    """All works; `scale` 1 is the full size, at which a measurement takes some seconds."""

    def load(messages: int, **more: Any) -> Load:
        return Load(max(20, int(messages * scale)), **more)

    new, reused = load(6000), load(10000, reuse=True)
    new_login, reused_login = load(6000, login=LOGIN), load(10000, reuse=True, login=LOGIN)
    signed, signed_login = load(4000, reuse=True), load(4000, reuse=True, login=LOGIN)
    large = load(60, size=10_000_000, clients=4)
    large = replace(large, messages=max(4, int(60 * scale)))
    few = Load(max(20, int(200 * scale)), reuse=True)
    queue = max(20, int(8000 * scale))
    return (
        Work("accept, a connection each", "messages", Accept(new), 2.0, Durability(few)),
        Work("accept, connections reused", "messages", Accept(reused), 3.0, Durability(few), ACCEPTING),
        Work("accept, a connection each, login", "messages", Accept(new_login), 2.0),
        Work("accept, connections reused, login", "messages", Accept(reused_login), 3.0),
        Work("deliver, one runner", "messages", Deliver(queue), 2.5, None, SENDING),
        Work("deliver, two runners", "messages", Deliver(queue, runners=2), 3.5),
        Work("end to end, a connection each", "messages", EndToEnd(new), 3.0),
        Work("end to end", "messages", EndToEnd(reused), 3.0, EndToEnd(reused, watch_memory=True)),
        Work("end to end, login", "messages", EndToEnd(reused_login), 3.0),
        Work("end to end, DKIM", "messages", EndToEnd(signed, sign=True), 6.0),
        Work("end to end, DKIM, login", "messages", EndToEnd(signed_login, sign=True), 6.0),
        Work("10 MB messages, 4 clients", "MB", Accept(large), 1.8, Accept(large, watch_memory=True)),
        Work("list a deep queue", "messages", Listing(max(50, int(100_000 * scale))), 2.0),
    )
