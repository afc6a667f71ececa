"""Read the state of the queue, the ledger's counters, the disk and the runners, for all answers."""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from mailer.events import store as event_store
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.maillog.ledger import losing_since
from mailer.maillog.series import HOUR, Point, Span
from mailer.maillog.totals import Totals, TotalsFold
from mailer.monitor.queue import QueueView, Snapshot
from mailer.monitor.results import Stuck, stuck
from mailer.spool import drop
from mailer.spool.directory import Spool
from mailer.spool.drop import Summary
from mailer.spool.free_space import FreeSpace
from mailer.spool.layout import LOG, STATE, Place
from mailer.spool.state import last_run, programs, provider_state, small_files, token_store
from mailer.spool.state.last_run import LastRun
from mailer.spool.state.pause import Pause, read_pause
from mailer.spool.state.provider_state import States
from mailer.spool.state.token_store import Ending
from mailer.spool.view.moves import unfinished

_SAVED = "totals.json"
"""The file of the counters in `state/`; they include days that have been removed from the ledger."""
_TOUCHED = (Place.NEW.value, Place.CUR.value, STATE, LOG)
"""Directories whose modification times show when the spool last changed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of the spool at one time."""

    at: float
    """Seconds since the epoch."""
    queue: Snapshot
    totals: Totals
    room: FreeSpace
    """What is free on the spool's filesystem."""
    changed: float
    """When the spool last changed, by the clock of that time."""
    last_run: float | None
    """When a run of mailer-send last succeeded; None: not known."""
    pause: Pause | None
    providers: States
    """The state of providers that have failed; see `spool.state.provider_state`."""
    sent_lately: int
    """Recipients that were sent within the last hour, according to the ledger."""
    left: Summary
    """What users have left in `drop/`."""
    receivers: int | None = None
    """The number of programs that accept mail; None if it is not known."""
    received: bool = False
    """Whether one has run since the monitor started."""
    moving: str = ""
    """What `unfinished` says of the oldest messages in `hold/` and `failed/`."""
    stuck: tuple[Stuck, ...] = ()
    """Messages that should have been sent; determined only if nothing was sent lately."""
    ledger_trouble: str = ""
    """Why the counters may be stale; empty: they are current."""
    losing_since: str = ""
    """Since when lines of the ledger could not be written, RFC 3339; empty: they can."""
    events: event_store.Progress | None = None
    """The state of event delivery; None: nothing was delivered yet."""
    endings: Mapping[str, Ending] = field(default_factory=dict)
    """When certificates and refresh tokens end, by the key `OAuth2.record`."""
    config_trouble: str = ""
    """Why the configuration file, as it is now, could not be used; empty: it could."""

    @property
    def free(self) -> int | None:
        """Free octets on the spool's filesystem; None if it does not say."""
        return self.room.octets


class Lookout:
    """Reads one spool. Thread-safe; one thread at a time reads the ledger."""

    def __init__(self, spool: Spool, clock: Clock, config_trouble: Callable[[], str] = str) -> None:
        """Load the saved counters; the queue and the ledger are not read yet.

        Args:
            spool: the spool.
            clock: returns the current time.
            config_trouble: returns what is wrong with the configuration file as it is now.
        """
        self._config_trouble = config_trouble
        self._spool = spool
        self._clock = clock
        self._queue = QueueView(spool, clock)
        self._fold = TotalsFold(partial(spool.directory, LOG), clock, small_files.read(spool, _SAVED))
        self._received = False
        self._lock = threading.Lock()
        self._saved = self._fold.saved()

    def look(self) -> Reading:
        """Return a new reading.

        Raises:
            OSError: the spool cannot be read.
        """
        queue = self._queue.snapshot()
        trouble = ""
        with self._lock:
            try:
                totals = self._fold.refresh()
            except OSError as error:
                totals, trouble = self._fold.totals, error.strerror or str(error)
            sent_lately = sum(point.sent for point in self._fold.points(HOUR))
        receivers = self._receivers()
        now = self._clock()
        return Reading(
            at=now,
            queue=queue,
            totals=totals,
            room=self._spool.free_space(),
            changed=max(self._modified(name) for name in _TOUCHED),
            last_run=_ended(last_run.read(self._spool)),
            pause=read_pause(self._spool),
            providers=provider_state.read(self._spool),
            sent_lately=sent_lately,
            receivers=receivers,
            received=self._received,
            moving=unfinished(self._spool, queue[Place.HOLD].oldest + queue[Place.FAILED].oldest),
            stuck=() if sent_lately else stuck(self._spool, queue, now),
            ledger_trouble=trouble,
            losing_since=self._losing_since(),
            events=event_store.shown(self._spool, now),
            left=drop.summary(self._spool),
            endings=token_store.endings(self._spool),
            config_trouble=self._config_trouble(),
        )

    def points(self, span: Span) -> tuple[Point, ...]:
        """Return the throughput over a span that ends now, as of the last reading."""
        with self._lock:
            return self._fold.points(span)

    def save(self) -> None:
        """Save the counters if they have changed.

        Raises:
            OSError: the saved counters are unchanged; nothing is lost as long as the ledger exists.
        """
        with self._lock:
            saved = self._fold.saved()
        if saved != self._saved:
            small_files.replace(self._spool, _SAVED, saved)
            self._saved = saved

    def _losing_since(self) -> str:
        try:
            with self._spool.directory(LOG) as directory:
                return losing_since(directory)
        except OSError:
            return ""

    def _receivers(self) -> int | None:
        try:
            found = sum(program.name == programs.RECEIVER for program in programs.running(self._spool))
        except OSError:
            return None
        self._received = self._received or found > 0
        return found

    def _modified(self, name: str) -> float:
        try:
            return os.stat(name, dir_fd=self._spool.root, follow_symlinks=False).st_mtime
        except OSError:
            return 0.0


def lag(reading: Reading) -> float:
    """Return the seconds that the oldest event which the receiver refused has waited; 0: none waits."""
    told = reading.events
    if told is None or not told.failures:
        return 0.0
    with suppress(ValueError):
        return max(0.0, reading.at - clock.seconds(told.waiting_since))
    return 0.0


def _ended(run: LastRun | None) -> float | None:
    try:
        return clock.seconds(run.at) if run else None
    except ValueError:
        return None
