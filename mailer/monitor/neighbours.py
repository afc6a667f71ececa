"""The spools of all hosts that share `spoolDir`: the status page and `mailer top` show them as one."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from mailer.mail.clock import Clock
from mailer.monitor.queue import QueueView, Snapshot
from mailer.spool.directory import Spool
from mailer.spool.hosts.neighbour import Neighbour

T = TypeVar("T")


class HostQueue(msgspec.Struct, frozen=True):
    """The queue of one host."""

    host: str
    queue: Snapshot


class _Other(msgspec.Struct, frozen=True):
    neighbour: Neighbour
    view: QueueView


class Neighbours:
    """The spools of this host and of the others, which are opened when they are first looked at. Thread-safe.

    A spool of another host that cannot be read is left out: the check `hosts` names it.
    """

    def __init__(self, spool: Spool, host: str, clock: Clock) -> None:
        """Prepare; nothing is opened.

        Args:
            spool: of this host.
            host: its name; empty: it has the spool for itself, and there are no others.
            clock: returns the current time.
        """
        self.own = Neighbour(host, spool)
        self._clock = clock
        self._others: dict[str, _Other] = {}
        self._lock = threading.Lock()

    def ask(self, question: Callable[[Neighbour], T]) -> list[T]:
        """Return the answers for this host and for each other one whose spool can be read.

        Raises:
            OSError: this host's spool cannot be read.
        """
        return [question(self.own), *self.ask_others(question)]

    def ask_others(self, question: Callable[[Neighbour], T]) -> list[T]:
        """Return the answers for the other hosts whose spools can be read."""
        return self._ask_others(lambda other: question(other.neighbour))

    def queues(self) -> tuple[HostQueue, ...]:
        """Count the queues of the other hosts."""
        return tuple(self._ask_others(lambda other: HostQueue(other.neighbour.host, other.view.snapshot())))

    def close(self) -> None:
        """Close the spools of the others."""
        with self._lock:
            while self._others:
                self._others.popitem()[1].neighbour.spool.close()

    def _ask_others(self, question: Callable[[_Other], T]) -> list[T]:
        if not self.own.host:
            return []
        answers = list[T]()
        with self._lock:
            for name in self._names():
                try:
                    answers.append(question(self._opened(name)))
                except OSError:
                    # Its directory may have been made anew; the next question opens that.
                    if other := self._others.pop(name, None):
                        other.neighbour.spool.close()
        return answers

    def _names(self) -> list[str]:
        from mailer.spool.hosts.neighbours import names  # noqa: PLC0415 - most hosts share nothing

        with suppress(OSError):
            return names(self.own.spool)
        return []

    def _opened(self, name: str) -> _Other:
        if name not in self._others:
            spool = Spool.open_unchecked(self.own.spool.path.parent / name)
            self._others[name] = _Other(Neighbour(name, spool), QueueView(spool, self._clock))
        return self._others[name]
