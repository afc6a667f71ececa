"""The queue scan: decides which message a runner claims next.

Mail that has just arrived comes first, then the backlog in `new/`, then retries that are due.

A pass looks once at everything that may be ready: claims of dead runners, `new/`, suspects (messages that
several runners died with), and the due buckets of `retry/`. It is a generator, so its memory does not grow
with the queue, and fresh mail overtakes it at every step: a backlog does not delay a password reset.
"""

import math
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from time import monotonic

from mailer.send.context import RunContext
from mailer.send.skipped import Skipped, advice, what_failed
from mailer.spool.directory import SPOOL_WIDE, Spool
from mailer.spool.due import due_buckets
from mailer.spool.key_retention import forget_old
from mailer.spool.layout import Place, Spot
from mailer.spool.run.archive import prune
from mailer.spool.run.claim import Claim, Claims, Suspicion, once
from mailer.spool.run.sweep import clean_tmp, remove_if_empty, requeue, requeue_some
from mailer.spool.scan import names
from mailer.spool.view.inspect import look

_MAX_FRESH = 10_000
"""The most names of fresh mail to keep in memory, and of suspects; a pass finds other fresh mail."""

_FRESH_SHARE = 8
"""Fresh messages in a row before one from the pass: steady arrivals must not starve the backlog."""

_SUSPECTS_AFTER = 30.0
"""Seconds that a pass spends on `new/` before it tries the suspects. A poison message must not end every run
before new mail was tried, and a long queue must not keep an innocent suspect waiting."""

_UNBUDGETED_EVERY = 60.0
"""Seconds between two scans for mail that needs no budget, while all budgets are used up."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 30.0
"""Seconds until a locked arrival is tried again: the first pause and the longest; each doubles the last."""


class QueueScan:
    """Claims the messages of a run, one at a time."""

    def __init__(self, spool: Spool, claims: Claims, context: RunContext, skipped: Skipped) -> None:
        self._spool = spool
        self._claims = claims
        self._context = context
        self._clock = context.clock
        self._log = context.log
        self._skipped = skipped
        self._left_alone = once(lambda spot, why: self._log.warning("skipped", path=spot.path, reason=why))
        self._fresh: deque[str] = deque()
        self._pauses: dict[str, float] = {}
        """The current pause, in seconds, of each arrival that was found locked."""
        self._locked: list[str] = []
        self._in_a_row = 0
        self._requeued: set[str] = set()
        """Names that the pass has moved into `new/` and will claim itself.

        Their arrival is ignored, so that they do not count as fresh mail.
        """
        self._pass: Iterator[Claim] = iter(())
        self._looks: Iterator[Claim | None] = iter(())
        self._look_again = -math.inf
        """When `next_without_budget` may begin a new scan, on the monotonic clock."""
        self.is_looking = False
        """Whether the scan of `next_without_budget` is unfinished."""
        self.leave_alone: Container[str] = ()
        """Names of messages that must stay in `new/` for now."""
        self.exhausted = True
        """Whether the last pass is finished."""
        self.missed = True
        """Whether mail may have arrived that no pass has seen yet."""

    def add_arrivals(self, names: Iterable[str] | None) -> None:
        """Add names of mail that has just arrived; None means that some arrived whose names are unknown."""
        if names is None or len(self._fresh) >= _MAX_FRESH:
            self.missed = True
        else:
            self._fresh.extend(name for name in names if name not in self._requeued)

    def locked(self) -> list[tuple[str, float]]:
        """Return the arrivals found locked since the last call, each with the seconds to wait before a retry.

        A receiver keeps its message locked until `new/` is synced, but the kernel reports the rename before.
        """
        if not self._locked:
            return []
        locked, self._locked = self._locked, []
        return [(name, self._pauses[name]) for name in locked]

    @property
    def is_something_new(self) -> bool:
        """Whether `new/` has a message that need not stay there."""
        return any(not self._is_left(name) for name in names(self._spool, Place.NEW.value))

    def begin_pass(self) -> None:
        """Start a new pass over the queue."""
        self.missed = self.exhausted = False
        self._pass = self._everything()

    def next(self) -> Claim | None:
        """Claim and return the next message to try; None when nothing is left.

        Raises:
            OSError: the spool cannot be read or written.
        """
        if self._in_a_row < _FRESH_SHARE and (claim := self._next_fresh()):
            self._in_a_row += 1
            return claim
        self._in_a_row = 0
        claim = next(self._pass, None)
        self.exhausted = claim is None
        return claim or self._next_fresh()

    def next_without_budget(self) -> Claim | None:
        """Claim and return the next message that can be settled while all budgets are used up.

        Returns None when there is none, or, if `is_looking` is still set, when enough was read for one
        iteration of the event loop.

        Raises:
            OSError: as `next`.
        """
        if not self.is_looking and monotonic() >= self._look_again:
            self._look_again = monotonic() + _UNBUDGETED_EVERY
            self._looks = self._without_budget()
            self.is_looking = True
        try:
            return next(self._looks)
        except StopIteration:
            self.is_looking = False
            return None

    def _next_fresh(self) -> Claim | None:
        while self._fresh:
            name = self._fresh.popleft()
            if self._is_left(name):
                continue
            if claim := self._claim(self._claims.claim, name):
                self._pauses.pop(name, None)
                return claim
            self._leave(name)
        return None

    def _leave(self, name: str) -> None:
        """Schedule another try at a locked arrival; one that stays locked for long is left to the passes."""
        pause = 2 * self._pauses.pop(name, _FIRST_PAUSE / 2)
        if pause <= _LONGEST_PAUSE and look(self._spool, Spot(Place.NEW, name)):
            self._pauses[name] = pause
            self._locked.append(name)

    def _everything(self) -> Iterator[Claim]:
        suspects = list[tuple[Suspicion, str]]()
        yield from self._recovered(suspects)
        until = monotonic() + _SUSPECTS_AFTER
        for name in names(self._spool, Place.NEW.value):
            if self._is_left(name):
                continue
            if suspects and monotonic() > until:
                yield from self._tried_last(suspects)
            if claim := self._claim(self._claims.claim, name):
                yield claim
            elif self._claims.is_busy:
                # It may have arrived just before the run began to listen, and its receiver holds it still.
                self._leave(name)
        yield from self._tried_last(suspects)
        for spot in self._due():
            if claim := self._claim(self._claims.claim, spot.name):
                yield claim
        self._delete_what_is_old()

    def _due(self) -> Iterator[Spot]:
        horizon, believed = self._context.backoff.horizon, self._context.trusts_clock()
        due = requeue_some(self._spool, self._claims, self._clock(), horizon, scheduled=believed)
        for some in due:
            self._requeued = {spot.name for spot in some}
            for spot in some:
                self._requeued.discard(spot.name)
                yield spot

    def _without_budget(self) -> Iterator[Claim | None]:
        """Claim what needs no budget: recovered messages first, then those that `Unbudgeted` selects.

        Suspects are left out, because new mail must be tried before them. Yields None after each group of
        names, so that the event loop gets a turn.
        """
        from mailer.send.unbudgeted import Unbudgeted  # noqa: PLC0415 - most runs have no budgets

        yield from self._recovered([])
        chosen = Unbudgeted(self._spool, self._context)
        new = (name for name in names(self._spool, Place.NEW.value) if not self._is_left(name))
        for some in chosen.among(Spot(Place.NEW, name) for name in new):
            yield from self._taken(some)
        horizon, believed = self._context.backoff.horizon, self._context.trusts_clock()
        for bucket in due_buckets(self._spool, self._clock(), horizon, scheduled=believed):
            directory = f"{Place.RETRY}/{bucket}"
            waiting = (Spot(Place.RETRY, name, bucket) for name in names(self._spool, directory))
            for some in chosen.among(waiting):
                yield from self._taken(requeue(self._spool, self._claims, some) if some else [])
            remove_if_empty(self._spool, directory)

    def _taken(self, spots: Iterable[Spot]) -> Iterator[Claim | None]:
        for spot in spots:
            if claim := self._claim(self._claims.claim, spot.name):
                yield claim
        yield None

    def _recovered(self, suspects: list[tuple[Suspicion, str]]) -> Iterator[Claim]:
        """Claim the messages of dead runners, but append suspects to `suspects`, to be tried later.

        A suspect may kill this runner too.
        """
        for name in names(self._spool, Place.CUR.value):
            if name in self._skipped:
                continue
            if len(suspects) < _MAX_FRESH and (suspicion := self._claims.suspicion(name)):
                suspects.append((suspicion, name))
            elif claim := self._recover(name):
                yield claim

    def _tried_last(self, suspects: list[tuple[Suspicion, str]]) -> Iterator[Claim]:
        """Claim the suspects, the least suspicious first, and empty the list."""
        for _, name in sorted(suspects):
            if claim := self._recover(name):
                yield claim
        suspects.clear()

    def _recover(self, name: str) -> Claim | None:
        claim = self._claim(self._claims.recover, name)
        if claim and claim.died:
            to = tuple(claim.entry.state.by_address)
            self._log.message("recovered", id=name, to=to, reason="its runner died")
        return claim

    def _is_left(self, name: str) -> bool:
        return name in self.leave_alone or name in self._skipped

    def _delete_what_is_old(self) -> None:
        """Delete unfinished files, old copies, old keys and old ledger days.

        While the clock is in doubt, only what needs no age to decide is deleted.
        """
        guard, now = self._context.guard, self._clock()
        trusted = guard is None or guard.observe() is None
        for name in clean_tmp(self._spool, now if trusted else None, self._left_alone):
            self._log.notice("removed an unfinished message that was never acknowledged", id=name)
        if trusted:
            prune(self._spool, now, self._context.archive_max_age, self._left_alone)
            forget_old(self._spool, now, self._context.idempotency_window)
            self._log.forget_old_days()

    def _claim(self, take: Callable[[str], Claim | None], name: str) -> Claim | None:
        try:
            return take(name)
        except OSError as error:
            if error.errno in SPOOL_WIDE:
                raise
            self.give_up(name, error)
            if self._skipped.full:
                raise
            return None

    def give_up(self, name: str, error: OSError) -> None:
        """Stop trying a message whose own file cannot be moved or written, and log that."""
        again = self._skipped.again(self._skipped.add(name, error))
        self._log.error("skipped", id=name, error=what_failed(error), to_do=advice(error), again=again)
