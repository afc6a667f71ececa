"""Deliver the ledger's events to the receiver, in order and at least once.

The cursor advances, durably, only after the receiver has accepted a batch. A program that dies in between
delivers that batch again, with the same event ids. No event overtakes one that was not accepted. A lock
ensures that only one program delivers at a time; the kernel releases it when its holder dies.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from msgspec.structs import replace

from mailer.config.calls import OnEvent
from mailer.events import backlog, store
from mailer.events.backlog import Batch, Choice, Gap
from mailer.events.event import GAP, gap
from mailer.events.receiver import Answer, Receiver, Verdict
from mailer.events.store import Cursor, Progress
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.spool.directory import Spool
from mailer.spool.layout import LOG

LONGEST = 3600.0
"""Seconds of the longest pause. A next try further in the future was set by a wrong clock and is ignored."""
_MAX_PAUSE_LATER = 300.0
"""Seconds of the longest pause after `Verdict.LATER`."""
_SAVE_EVERY, _IDLE_SAVE_EVERY = 60.0, 3600.0
"""Seconds between writes of the progress while no events are pending, when the ledger has grown and when it
has not."""


def pause(answer: Answer, failures: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait before the next try (exponential backoff with jitter).

    Args:
        answer: the receiver's last answer.
        failures: consecutive failures, this one included.
        random: returns a number in [0, 1), so that many hosts do not all try at the same time.
    """
    match answer.verdict:
        case Verdict.GONE:
            planned = LONGEST
        case Verdict.LATER:
            planned = min(2.0 ** min(failures, 16), _MAX_PAUSE_LATER)
        case _:
            planned = min(30 * 2.0 ** min(failures, 16), LONGEST)
    return min(max(planned, answer.wait), LONGEST) * (1 - 0.25 * random())


class Deliverer:
    """Delivers the events of one spool's ledger."""

    def __init__(
        self, on_event: OnEvent, spool: Spool, log: MailLog, now: Clock, random: Callable[[], float]
    ) -> None:
        """Prepare; call `begin` first."""
        self._spool = spool
        self._log = log
        self._now = now
        self._random = random
        self._directory = partial(spool.directory, LOG)
        self._choice = Choice(frozenset(on_event.events), on_event.fields)
        self._receiver = Receiver(on_event, now)
        self._most = backlog.BATCH
        self._said = ""
        self._idle_at: tuple[dict[str, int], object] | None = None
        """The sizes of the ledger's days and the cursor's version when everything had been delivered."""
        self._looked = 0.0
        self.deadline: float | None = None
        """The event loop's time by which the receiver must have accepted a batch, or else it has failed."""

    def begin(self) -> None:
        """Start the cursor at the end of the ledger if there is none yet; raises OSError."""
        with suppress(store.Damaged):
            if store.read(self._spool) is not None:
                return
        with store.locked(self._spool) as mine:
            if mine:
                self._known()

    def _known(self) -> Progress:
        try:
            progress = store.read(self._spool)
        except store.Damaged as damaged:
            self._log.error(f"{damaged}: {store.AGAIN}")
            progress = Progress(cursor=Cursor(positions={}), looked=self._now())
            store.write(self._spool, progress)
        if progress is None:
            progress = Progress(cursor=backlog.start(self._directory), looked=self._now())
            store.write(self._spool, progress)
            self._log.notice("event delivery begins with events from now on")
        return progress

    async def round(self) -> bool:
        """Deliver all pending events; return whether all were delivered.

        It returns early if the receiver refuses a batch or is paused, or if another program delivers.

        Raises:
            OSError: the ledger cannot be read, or the cursor cannot be written; then some events may be
                delivered again.
        """
        sizes = await asyncio.to_thread(backlog.sizes, self._directory)
        # The cursor's version is compared as well, since `mailer events replay` moves the cursor back.
        if (sizes, store.version(self._spool)) == self._idle_at and abs(
            self._now() - self._looked
        ) < _IDLE_SAVE_EVERY:
            return True
        with store.locked(self._spool) as mine:
            if not mine:
                return False
            progress, now = self._known(), self._now()
            if now < progress.next_try <= now + LONGEST:
                return False
            done = await self._tell_all(progress, sizes)
            self._idle_at = (sizes, store.version(self._spool)) if done else None
        self._looked = now
        return done

    async def _tell_all(self, progress: Progress, sizes: dict[str, int]) -> bool:
        if lost := backlog.gap(progress, sizes, self._now()):
            told = await self._tell_gap(progress, lost, sizes)
            if told is None:
                return False
            progress = told
        batches = self._batches(progress)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            answer = await self._give(batch)
            if answer.verdict is Verdict.TAKEN:
                progress = await asyncio.to_thread(self._taken, progress, batch)
            elif answer.verdict is Verdict.TOO_LARGE and self._most > 1:
                self._most //= 2
                batches = self._batches(progress)
            else:
                self._failed(progress, answer, batch.events[0].at, sizes)
                return False
        return True

    def _batches(self, progress: Progress) -> Iterator[Batch]:
        return backlog.batches(self._directory, progress.cursor, self._choice, self._most)

    async def _give(self, batch: Batch) -> Answer:
        if not batch.events:
            return Answer(Verdict.TAKEN)
        try:
            async with asyncio.timeout_at(self.deadline):
                return await self._receiver.give(batch.events)
        except TimeoutError:
            return Answer(
                Verdict.LATER, "the run ended before the receiver had accepted them; the receiver is too slow"
            )

    async def _tell_gap(self, progress: Progress, lost: Gap, sizes: dict[str, int]) -> Progress | None:
        what = "events were lost: days of the ledger were removed before the receiver accepted them"
        self._log.error(what, since=lost.since, until=lost.until)
        event = gap(lost.since, lost.until, clock.rfc3339(self._now()))
        batch = Batch((event,), backlog.without(progress.cursor, sizes))
        answer = await self._give(batch)
        if answer.verdict is Verdict.TAKEN:
            return await asyncio.to_thread(self._taken, replace(progress, ends={}), batch)
        self._failed(progress, answer, lost.since, {})
        return None

    def _taken(self, progress: Progress, batch: Batch) -> Progress:
        """Advance the cursor; without events it is written only now and then."""
        now, idle = self._now(), not batch.events and not progress.failures
        if idle and abs(now - progress.looked) < (
            _SAVE_EVERY if batch.cursor != progress.cursor else _IDLE_SAVE_EVERY
        ):
            return replace(progress, cursor=batch.cursor)
        taken = now if batch.events else progress.taken
        gaps = [(event.since, event.until) for event in batch.events if event.event == GAP]
        since, until = gaps[-1] if gaps else (progress.gap_since, progress.gap_until)
        after = Progress(cursor=batch.cursor, looked=now, taken=taken, gap_since=since, gap_until=until)
        backlog.make_durable(self._directory, progress.cursor, batch.cursor)
        store.write(self._spool, after)
        if progress.failures:
            self._log.notice("the receiver of events accepts them again")
        self._said = ""
        return after

    def _failed(self, progress: Progress, answer: Answer, first: str, sizes: dict[str, int]) -> None:
        now, failures = self._now(), progress.failures + 1
        offsets = {day: position.offset for day, position in progress.cursor.positions.items()}
        after = replace(
            progress,
            looked=now,
            ends=progress.ends | {day: end for day, end in sizes.items() if end > offsets.get(day, 0)},
            failures=failures,
            error=answer.why,
            tried=now,
            next_try=now + pause(answer, failures, self._random),
            waiting_since=first,
        )
        backlog.make_durable(self._directory, Cursor(positions={}), progress.cursor)
        store.write(self._spool, after)
        if answer.why != self._said:
            again = clock.rfc3339(after.next_try)
            self._log.warning("events wait: the receiver does not accept them", error=answer.why, again=again)
        self._said = answer.why
