"""Count the queue by state, at a cost that depends on changes and not on its length.

A directory is counted again if its modification time has changed, as every rename into or out of it does. The
count of a large directory that changes all the time is cached: counting takes at most 2 % of a processor, and
happens on a background thread.
"""

import os
import threading
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice, starmap
from operator import attrgetter
from time import monotonic

from mailer.mail.clock import Clock
from mailer.spool.directory import Spool
from mailer.spool.ids import arrival
from mailer.spool.layout import Place, Spot, bucket_time, is_scheduled
from mailer.spool.scan import QUEUE, buckets, names

SAMPLE = 50
"""The number of ids kept for each directory, the oldest ones."""
LARGE = 10_000
"""Messages. Larger directories are counted in the background; callers get the last count. *0.6 us each.*"""
_PAUSE_FACTOR = 50
"""A background count starts at the earliest after this many times the duration of the last one."""
_GRANULE = 20_000_000
"""Nanoseconds of a tick of the kernel's clock; changes within one tick have the same modification time."""

WAITING = (Place.NEW, Place.CUR, Place.RETRY)
"""The places of mail that will be sent. In the other places it waits for the operator."""


@dataclass(frozen=True, slots=True)
class State:
    """The messages in one place."""

    place: Place
    count: int = 0
    oldest: tuple[Spot, ...] = ()
    """The first `SAMPLE` messages by arrival, not counting those that their senders have scheduled."""

    def age(self, now: float) -> float | None:
        """Return the seconds since the oldest message arrived; None: there is none."""
        return max(0.0, now - arrival(self.oldest[0].name)) if self.oldest else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The queue at one time, approximately, because messages move while they are counted."""

    states: dict[Place, State]
    due: tuple[tuple[float, int], ...] = ()
    """(due time in seconds since the epoch, number of deferred messages), the earliest first."""

    def __getitem__(self, place: Place) -> State:
        return self.states[place]

    @property
    def waiting(self) -> int:
        """The number of messages that will be sent."""
        return sum(self.states[place].count for place in WAITING)

    def waiting_age(self, now: float) -> float:
        """Return the age in seconds of the oldest message that will be sent; 0 without one."""
        return max((self.states[place].age(now) or 0.0 for place in WAITING), default=0.0)


def merged(queues: Iterable[Snapshot]) -> Snapshot:
    """Return the queues of several hosts as one."""
    all_of_them = list(queues)
    due = Counter[float]()
    for queue in all_of_them:
        due.update(dict(queue.due))
    states = {place: _together([queue[place] for queue in all_of_them]) for place in all_of_them[0].states}
    return Snapshot(states, tuple(sorted(due.items())))


def _together(states: list[State]) -> State:
    oldest = merge(*(state.oldest for state in states), key=attrgetter("name"))
    return State(states[0].place, sum(state.count for state in states), tuple(islice(oldest, SAMPLE)))


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    """The last count of one directory; compares by identity."""

    count: int = 0
    oldest: list[str] = field(default_factory=list)
    modified: int = -1
    """The directory's modification time when the count began, in nanoseconds; -1: count again."""
    took: float = 0.0
    """The duration in seconds."""
    ended: float = float("-inf")
    """When the count ended, in monotonic seconds."""


class QueueView:
    """Counts one spool's queue. Thread-safe."""

    def __init__(self, spool: Spool, clock: Clock, *, large: int = LARGE) -> None:
        """Prepare; nothing is read yet. Args: large: replaces `LARGE`."""
        self._spool = spool
        self._clock = clock
        self._large = large
        self._directories: dict[str, _Counted] = {}
        self._merged: dict[str, _Counted] = {}
        """The counts of the buckets from which the next two attributes were computed."""
        self._retries = State(Place.RETRY)
        self._due: tuple[tuple[float, int], ...] = ()
        self._lock = threading.Lock()
        self._counting: threading.Thread | None = None

    def snapshot(self, places: Iterable[Place] = QUEUE) -> Snapshot:
        """Return the counts. The first call counts everything, later ones what has changed.

        Raises:
            OSError: the spool cannot be read.
        """
        with self._lock:
            states = {place: self._simple(place) for place in places if place is not Place.RETRY}
            retry, due = self._retry()
        return Snapshot(states | {Place.RETRY: retry}, due)

    def _simple(self, place: Place) -> State:
        counted = self._look(place.value)
        return State(place, counted.count, tuple(Spot(place, name) for name in counted.oldest))

    def _retry(self) -> tuple[State, tuple[tuple[float, int], ...]]:
        counted = {
            bucket: self._look(f"{Place.RETRY}/{bucket}") for bucket in buckets(self._spool, Place.RETRY)
        }
        if counted != self._merged:
            for gone in self._merged.keys() - counted.keys():
                self._directories.pop(f"{Place.RETRY}/{gone}", None)
            self._merged = counted
            self._due = tuple((bucket_time(name), each.count) for name, each in counted.items() if each.count)
            late = ((bucket, each) for bucket, each in counted.items() if not is_scheduled(bucket))
            first = islice(merge(*starmap(_named, late)), SAMPLE)
            oldest = tuple(Spot(Place.RETRY, name, bucket) for name, bucket in first)
            self._retries = State(Place.RETRY, sum(count for _, count in self._due), oldest)
        return self._retries, self._due

    def _look(self, directory: str) -> _Counted:
        known = self._directories.setdefault(directory, _Counted())
        try:
            modified = os.stat(directory, dir_fd=self._spool.root, follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            return _Counted()  # The bucket has just been removed.
        if modified == known.modified:
            return known
        if known.count <= self._large:
            self._directories[directory] = _count(self._spool, directory, self._clock)
        elif monotonic() - known.ended >= known.took * _PAUSE_FACTOR:
            self._count_beside(directory)
        return self._directories[directory]

    def _count_beside(self, directory: str) -> None:
        """Count in a background thread, one directory at a time."""
        if self._counting is not None and self._counting.is_alive():
            return

        def work() -> None:
            try:
                counted = _count(self._spool, directory, self._clock)
            except OSError:
                return  # The next call meets the same error.
            with self._lock:
                self._directories[directory] = counted

        self._counting = threading.Thread(target=work, name="queue-count", daemon=True)
        self._counting.start()


def _named(bucket: str, counted: _Counted) -> Iterator[tuple[str, str]]:
    return ((name, bucket) for name in counted.oldest)


def _count(spool: Spool, directory: str, clock: Clock) -> _Counted:
    began = monotonic()
    try:
        modified = os.stat(directory, dir_fd=spool.root, follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return _Counted()
    if clock() * 1e9 - modified < _GRANULE:
        modified = -1  # It may change again within the same tick.
    total, oldest = 0, list[str]()
    for name in names(spool, directory):
        total += 1
        if len(oldest) < SAMPLE or name < oldest[-1]:
            insort(oldest, name)
            del oldest[SAMPLE:]
    ended = monotonic()
    return _Counted(total, oldest, modified, ended - began, ended)
