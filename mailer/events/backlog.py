"""Read the events that are not delivered yet from the ledger, in batches, each with the cursor after it.

The ledger itself is the queue; nothing is copied. A batch is read again until the receiver has accepted it.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mailer.config.calls import EventField, EventKind
from mailer.events.event import Event, events_of, is_told
from mailer.events.store import Cursor, Progress
from mailer.mail import clock
from mailer.maillog import ledger
from mailer.maillog.files import days, file_of, open_day
from mailer.maillog.ledger import OpenDirectory
from mailer.maillog.lines import decode
from mailer.maillog.tail import Position, Tail

BATCH = 100
"""Events per request. *About 40 KB; a receiver that stores each in a database handles 100 in a second.*"""
_MIN_RETENTION = 2 * 86_400.0
"""Seconds that each day of the ledger is kept at least; a deliverer that reads more often sees every day."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which events and fields the receiver gets."""

    kinds: frozenset[EventKind]
    fields: Collection[EventField]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order of the ledger; empty: the ledger has none up to the cursor."""

    events: tuple[Event, ...]
    cursor: Cursor
    """The position after these events."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of the ledger that was removed before its events were delivered."""

    since: str
    until: str


def start(directory: OpenDirectory) -> Cursor:
    """Return a cursor at the current end of the ledger; raises OSError."""
    tail = Tail(directory)
    tail.skip()
    return Cursor(positions=tail.positions)


def since(directory: OpenDirectory, moment: float) -> Cursor:
    """Return a cursor at each day's first line at or after a time; raises OSError."""
    at, positions = clock.rfc3339(moment), start(directory).positions
    earlier = {day: position for day, position in positions.items() if day < _day(at)}
    begun: dict[str, Position] = {}
    passed: set[str] = set()
    for day, behind, raw in Tail(directory, earlier).lines():
        if day not in passed and ((line := decode(raw)) is None or line.at < at):
            begun[day] = behind
        else:
            passed.add(day)
    return Cursor(positions=earlier | begun)


def batches(directory: OpenDirectory, cursor: Cursor, choice: Choice, most: int = BATCH) -> Iterator[Batch]:
    """Yield the batches from a cursor to the end of the ledger; the last one may be empty.

    Raises:
        OSError: the ledger cannot be read.
    """
    tail, gathered = Tail(directory, cursor.positions), list[Event]()
    for day, behind, raw in tail.lines():
        line = decode(raw)
        if line is not None and is_told(line, choice.kinds):
            told = cursor.told if cursor.day == day else 0
            for number, event in enumerate(events_of(line, choice.fields), start=1):
                if number <= told:
                    continue
                gathered.append(event)
                if len(gathered) == most:
                    inside = Cursor(positions=cursor.positions, day=day, told=number)
                    yield Batch(
                        tuple(gathered), inside if number < len(line.to) else _behind(cursor, day, behind)
                    )
                    gathered.clear()
        cursor = _behind(cursor, day, behind)
    yield Batch(tuple(gathered), Cursor(positions=tail.positions))


def _behind(cursor: Cursor, day: str, position: Position) -> Cursor:
    """Return the cursor after a line; a partly delivered line of another day stays recorded."""
    partly = ("", 0) if cursor.day == day else (cursor.day, cursor.told)
    return Cursor(positions=cursor.positions | {day: position}, day=partly[0], told=partly[1])


def losing_since(directory: OpenDirectory) -> str:
    """Return since when lines have been lost that have no `lost` line yet, or ""; raises OSError."""
    with directory() as fd:
        return ledger.losing_since(fd)


def sizes(directory: OpenDirectory) -> dict[str, int]:
    """Return the length of each day's file; raises OSError."""
    found = {}
    with directory() as fd:
        for day in days(fd):
            try:
                found[day] = os.stat(file_of(day), dir_fd=fd, follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return found


def make_durable(directory: OpenDirectory, before: Cursor, after: Cursor) -> None:
    """Sync the days in which a cursor advanced, so that it never points beyond what survives a power cut.

    Raises:
        OSError: a day's file cannot be synced.
    """
    with directory() as fd:
        for day, position in after.positions.items():
            if before.positions.get(day) == position:
                continue
            try:
                file = open_day(fd, day)
            except FileNotFoundError:
                continue
            try:
                os.fdatasync(file)
            finally:
                os.close(file)


def gap(progress: Progress, there: Collection[str], now: float) -> Gap | None:
    """Return the part of the ledger that was removed before it was delivered; None: none is known.

    Args:
        progress: as it was last written.
        there: the days that still have a file.
        now: seconds since the epoch.
    """
    offsets = {day: position.offset for day, position in progress.cursor.positions.items()}
    lost = [day for day, end in progress.ends.items() if day not in there and end > offsets.get(day, 0)]
    looked = clock.rfc3339(progress.looked)
    if not lost and now - progress.looked > _MIN_RETENTION and there and min(there) > _day(looked):
        return Gap(progress.waiting_since or looked, _begin(min(there)))
    if not lost:
        return None
    return Gap(progress.waiting_since or _begin(min(lost)), f"{_begin(max(lost))[:11]}23:59:59.999999Z")


def without(cursor: Cursor, there: Collection[str]) -> Cursor:
    """Return the cursor without the days that no longer have a file."""
    positions = {day: position for day, position in cursor.positions.items() if day in there}
    return Cursor(positions=positions, day=cursor.day, told=cursor.told)


def _day(moment: str) -> str:
    return moment[:10].replace("-", "")


def _begin(day: str) -> str:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00.000000Z"
