"""One look at everything: the queue, the ledger's counters, the disk, the runners; answers are made of it."""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from mailer.events import store as event_store
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.maillog.series import HOUR, Point, Span
from mailer.maillog.totals import Totals, TotalsFold
from mailer.monitor.queue import QueueView, Snapshot
from mailer.monitor.results import Stuck, stuck
from mailer.spool import drop
from mailer.spool.drop import Summary
from mailer.spool.layout import LOG, STATE, Place, Spool
from mailer.spool.state import last_run, provider_state, small_files, token_store
from mailer.spool.state.last_run import LastRun
from mailer.spool.state.pause import Pause, read_pause
from mailer.spool.state.provider_state import States
from mailer.spool.state.token_store import Ending

_SAVED = "totals.json"
"""The counters, in `state/`: days that retention has removed from the ledger stay counted."""
_TOUCHED = (Place.NEW.value, Place.CUR.value, STATE, LOG)
"""Directories whose times tell when something last happened."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look showed."""

    at: float
    """Seconds since the epoch."""
    queue: Snapshot
    totals: Totals
    free: int
    """Octets on the spool's filesystem."""
    changed: float
    """When something in the spool last changed, by the clock of that time."""
    last_run: float | None
    """When a run of mailer-send last did its work; None: never, as far as is known."""
    pause: Pause | None
    providers: States
    """What is known of providers that do not, or did not, work; see `spool.provider_state`."""
    sent_lately: int
    """Recipients that were sent within the last hour, as far as the ledger says."""
    left: Summary
    """What users have left in `drop/`."""
    stuck: tuple[Stuck, ...] = ()
    """What should have left and has not; looked for only while nothing leaves."""
    ledger_trouble: str = ""
    """Why the counters may be old."""
    events: event_store.Progress | None = None
    """How telling others what became of mail goes; None: nobody was told yet."""
    endings: Mapping[str, Ending] = field(default_factory=dict)
    """When certificates and refresh tokens end, by the account that `OAuth2.record` names."""


class Lookout:
    """Looks at one spool. Any thread may ask; the ledger is read by one at a time."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        """Look at nothing yet."""
        self._spool = spool
        self._clock = clock
        self._queue = QueueView(spool, clock)
        self._fold = TotalsFold(partial(spool.directory, LOG), clock, small_files.read(spool, _SAVED))
        self._lock = threading.Lock()
        self._saved = self._fold.saved()

    def look(self) -> Reading:
        """Look at everything.

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
        now = self._clock()
        return Reading(
            at=now,
            queue=queue,
            totals=totals,
            free=self._spool.free_bytes(),
            changed=max(self._modified(name) for name in _TOUCHED),
            last_run=_ended(last_run.read(self._spool)),
            pause=read_pause(self._spool),
            providers=provider_state.read(self._spool),
            sent_lately=sent_lately,
            stuck=() if sent_lately else stuck(self._spool, queue, now),
            ledger_trouble=trouble,
            events=event_store.shown(self._spool, now),
            left=drop.summary(self._spool),
            endings=token_store.endings(self._spool),
        )

    def points(self, span: Span) -> tuple[Point, ...]:
        """Return the throughput over a span that ends now, as of the last look."""
        with self._lock:
            return self._fold.points(span)

    def save(self) -> None:
        """Write the counters down, if there is news.

        Raises:
            OSError: they are as they were last written; nothing is lost while the ledger is there.
        """
        with self._lock:
            saved = self._fold.saved()
        if saved != self._saved:
            small_files.replace(self._spool, _SAVED, saved)
            self._saved = saved

    def _modified(self, name: str) -> float:
        try:
            return os.stat(name, dir_fd=self._spool.root, follow_symlinks=False).st_mtime
        except OSError:
            return 0.0


def lag(reading: Reading) -> float:
    """Return for how many seconds the oldest event has waited that the receiver did not take; 0: none has."""
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
