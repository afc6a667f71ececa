"""Counters since the first line of the ledger: an incremental fold, so that no counter ever decreases.

The fold's state is small and has one owner, which saves it; days that retention has removed since stay
counted. The counters depend only on the lines read so far: two programs that fold the same ledger from the
same state get the same numbers.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from operator import add

import msgspec
from msgspec.structs import replace

from mailer.mail.clock import Clock
from mailer.mail.outcome import Status
from mailer.maillog.ledger import Line, OpenDirectory
from mailer.maillog.lines import UNREADABLE, Row, rows
from mailer.maillog.search import Query, find
from mailer.maillog.series import Counts, Flow, Point, Series, Span
from mailer.maillog.tail import Position, Tail

DELAY_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 432000.0)
"""Seconds: upper bounds of the buckets of delivery delays, up to the five days of `retry.maxAge`."""
_Key = tuple[str, int, str]
"""Event, attempt, and recipient; or an empty event, the attempt, and the result of the whole message."""


class Histogram(msgspec.Struct, frozen=True):
    """A histogram of durations, in seconds."""

    counts: tuple[int, ...] = (0,) * (len(DELAY_BOUNDS) + 1)
    """The count of each bucket of `DELAY_BOUNDS` (not cumulative); the last is for longer durations."""
    total: float = 0.0
    """The sum of all durations."""

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def cumulative(self) -> tuple[tuple[float, int], ...]:
        """Return pairs of a bound and the count up to it, as for Prometheus; the last bound is infinity."""
        bounds, so_far = (*DELAY_BOUNDS, float("inf")), 0
        pairs = []
        for bound, count in zip(bounds, self.counts, strict=True):
            so_far += count
            pairs.append((bound, so_far))
        return tuple(pairs)


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What has happened since the ledger began. No counter ever decreases."""

    # Messages.
    accepted: int = 0
    notifications: int = 0
    """How many of `accepted` are notifications that we wrote about other mail."""
    delivered: int = 0
    """Messages that were sent to every recipient."""
    failed: int = 0
    """Messages given up with a recipient refused or expired; if requeued, one may be counted again."""
    held: int = 0
    released: int = 0
    requeued: int = 0
    """Messages requeued by the operator."""
    recovered: int = 0
    """Messages taken over from a runner that died."""
    quarantined: int = 0
    removed: int = 0
    """Messages removed by the operator."""

    # Recipients. An outcome of one recipient in one attempt counts once.
    recipients: int = 0
    """Recipients of accepted messages."""
    sent: int = 0
    deferred: int = 0
    """Outcomes that are followed by another attempt."""
    bounced: int = 0
    expired: int = 0
    uncertain: int = 0
    """Outcomes of attempts whose final reply was lost."""

    # Other.
    bytes: int = 0
    """Octets of accepted messages."""
    rejected: int = 0
    """Transactions and recipients that were refused, except those in `limited`."""
    limited: int = 0
    """Messages refused because of a rate limit."""
    logins_failed: int = 0
    hop_troubles: int = 0
    """Attempts at a next hop that were followed by another hop."""
    provider_changes: int = 0

    delay: Histogram = Histogram()
    """Delays from acceptance to delivery, one for each recipient that was sent."""
    attempts: int = 0
    """Outcomes with a known duration; recipients that share an attempt and an outcome count once."""
    attempt_seconds: float = 0.0
    """The sum of these durations, in seconds, each from the message's claim to the reply."""

    @property
    def mean_attempt_ms(self) -> float:
        return 1000 * self.attempt_seconds / self.attempts if self.attempts else 0.0


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The fold's whole state."""

    positions: dict[str, Position] = {}
    totals: Totals = Totals()
    series: list[dict[int, Counts]] = []


_BY_LINE = {
    "accepted": "accepted",
    "held": "held",
    "released": "released",
    "requeued": "requeued",
    "recovered": "recovered",
    "quarantined": "quarantined",
    "removed": "removed",
    "rejected": "rejected",
    "limited": "limited",
    "login-failed": "logins_failed",
    "attempt": "hop_troubles",
    "provider": "provider_changes",
}
"""Events that are counted by lines, with their counters."""

_FLOWS = {
    "accepted": Flow.ACCEPTED,
    Status.SENT.value: Flow.SENT,
    Status.DEFERRED.value: Flow.DEFERRED,
    Status.UNCERTAIN.value: Flow.DEFERRED,
    Status.BOUNCED.value: Flow.BOUNCED,
    Status.EXPIRED.value: Flow.BOUNCED,
}
"""Events that are counted by recipients, with their places in the series."""

_OUTCOMES = tuple(event for event in _FLOWS if event != "accepted")

_SENT = Status.SENT.value
_AGAIN = b'"again"'
_TO_THE_MINUTE = len("2026-11-22T21:45")


class TotalsFold:
    """Counts the ledger. Not thread-safe."""

    def __init__(self, directory: OpenDirectory, clock: Clock, saved: bytes | None = None) -> None:
        """Prepare; nothing is read yet.

        Args:
            directory: opens the spool's `log/`.
            clock: returns the current time, for the series.
            saved: the result of an earlier `saved`. If it is None, or cannot be decoded, counting starts with
                the ledger as it is now.
        """
        state = _load(saved)
        self._directory = directory
        self._clock = clock
        self._tail = Tail(directory, state.positions)
        self._series = Series(state.series)
        self._totals = state.totals

    def refresh(self) -> Totals:
        """Read what was appended since the last call, and return the counters.

        The first call takes a while (*measured: 0.9 million lines a second*), and a call without news takes
        some system calls. Memory does not grow with the size of the ledger.

        Raises:
            OSError: the ledger cannot be read now; what was counted stays, and the next call continues.
        """
        for block in self._tail.blocks():
            self._add(block)
        return self._totals

    @property
    def totals(self) -> Totals:
        """The counters as of the last refresh."""
        return self._totals

    def points(self, span: Span) -> tuple[Point, ...]:
        """Return the throughput over a span that ends now, as of the last refresh."""
        return self._series.points(span, self._clock())

    def saved(self) -> bytes:
        """Return the fold's state, from which another `TotalsFold` can continue after a restart."""
        return msgspec.json.encode(
            _Saved(positions=self._tail.positions, totals=self._totals, series=self._series.saved())
        )

    def _add(self, block: bytes) -> None:
        tally = _Tally()
        lines = rows(block)
        tally.count(self._uncounted(lines) if _AGAIN in block else lines)
        self._series.add(tally.minutes, self._clock())
        self._totals = tally.added_to(self._totals)

    def _uncounted(self, block: Iterable[Row]) -> list[Row]:
        deduplication = _Deduplication(self._directory)
        return [deduplication.fresh(row) if row.again else row for row in block]


class _Tally:
    """The counts of one block."""

    def __init__(self) -> None:
        self.lines: defaultdict[str, int] = defaultdict(int)
        self.recipients: defaultdict[str, int] = defaultdict(int)
        self.messages: defaultdict[str, int] = defaultdict(int)
        self.minutes: dict[str, Counts] = {}
        self.bytes = 0
        self.notifications = 0
        self.delays = [0] * (len(DELAY_BOUNDS) + 1)
        self.delay = 0.0
        self.attempts = 0
        self.attempt_seconds = 0.0

    def count(self, block: Iterable[Row]) -> None:
        """Add lines. The speed of this loop is that of counting a large ledger."""
        minute, bucket = "", [0] * len(Flow)
        for row in block:
            event = row.event
            self.lines[event] += 1 + row.more
            flow = _FLOWS.get(event)
            if flow is None or not row.to:
                continue
            number = len(row.to)
            self.recipients[event] += number
            if not row.at.startswith(minute) or not minute:
                minute = row.at[:_TO_THE_MINUTE]
                bucket = self.minutes.setdefault(minute, [0] * len(Flow))
            bucket[flow] += number
            if flow is Flow.ACCEPTED:
                self.bytes += row.size
                self.notifications += bool(row.about)
            else:
                self._count_outcome(row, number)

    def _count_outcome(self, row: Row, number: int) -> None:
        if row.event == _SENT:
            self.delays[bisect_left(DELAY_BOUNDS, row.delay)] += number
            self.delay += row.delay * number
        if row.message:
            self.messages[row.message] += 1
        if len(row.delays) == 4:
            self.attempts += 1
            self.attempt_seconds += row.delays[2] + row.delays[3]

    def added_to(self, totals: Totals) -> Totals:
        """Return `totals` plus these counts."""
        more = {counter: self.lines[event] for event, counter in _BY_LINE.items()}
        more |= {status: self.recipients[status] for status in _OUTCOMES}
        more |= {outcome: self.messages[outcome] for outcome in ("delivered", "failed")}
        more |= {
            "recipients": self.recipients["accepted"],
            "bytes": self.bytes,
            "notifications": self.notifications,
            "attempts": self.attempts,
        }
        return replace(
            totals,
            **{counter: getattr(totals, counter) + number for counter, number in more.items()},
            attempt_seconds=totals.attempt_seconds + self.attempt_seconds,
            delay=Histogram(
                tuple(map(add, totals.delay.counts, self.delays)), totals.delay.total + self.delay
            ),
        )


def _load(saved: bytes | None) -> _Saved:
    try:
        state = msgspec.json.decode(saved or b"", type=_Saved)
    except UNREADABLE:
        return _Saved()
    if len(state.totals.delay.counts) == len(Histogram().counts):
        return state
    # It was saved by a version with other bounds.
    return replace(state, totals=replace(state.totals, delay=Histogram()))


class _Deduplication:
    """Deduplicates outcomes that are logged again, because their dead runner may have logged them already.

    Only lines marked `again` can repeat something. So only this class has to look back in the ledger, and
    counting needs no memory of what was counted. The cost is one search of the ledger for each message that a
    dead runner left, from the end back to the message's acceptance.
    """

    def __init__(self, directory: OpenDirectory) -> None:
        self._directory = directory
        self._known: dict[str, dict[_Key, str]] = {}
        """By id and outcome: the time of the first `again` line with it; empty if another line has it."""

    def fresh(self, row: Row) -> Row:
        """Reduce a repeated line to the outcomes that no earlier line has; raises OSError."""
        if row.id not in self._known:
            self._known[row.id] = self._first_told(row.id, row.at)
        known = self._known[row.id]
        first = {key for key in _keys(row) if known.get(key) == row.at}
        return replace(
            row,
            to=tuple(address for address in row.to if (row.event, row.attempt, address) in first),
            message=row.message if ("", row.attempt, row.message) in first else "",
        )

    def _first_told(self, message_id: str, at: str) -> dict[_Key, str]:
        known: dict[_Key, str] = {}
        # Backwards, so that the earliest line with an outcome is entered last.
        for line, _ in find(self._directory, Query(id=message_id), newest_first=True):
            for key in _keys(line):
                if not line.again:
                    known[key] = ""
                elif known.get(key) != "":
                    known[key] = line.at
            # If a message's acceptance is dated after its outcomes, the clock was ahead: search all days.
            if line.event == "accepted" and line.at <= at:
                break
        return known


def _keys(line: Row | Line) -> list[_Key]:
    keys = [(line.event, line.attempt, address) for address in line.to]
    return [*keys, ("", line.attempt, line.message)] if line.message else keys
