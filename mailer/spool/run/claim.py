"""Claiming messages: what a runner may hold, and what happens to what it may not.

`Claims` is the runner's view of the spool. Whatever it returns is locked, readable and verified against its
digests; whatever it meets on the way that is not goes where it belongs.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.spool import idempotency
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.journal import Event, Kind, decode, fold, last_kind
from mailer.spool.layout import SPOOL_WIDE, Place, Spool, Spot
from mailer.spool.locked import LockedMessage, Missed, Unsafe, quarantine
from mailer.spool.names import is_met_earlier
from mailer.spool.run.notice import finish
from mailer.spool.transitions import Move, target
from mailer.spool.view.inspect import View

SUSPECT_AFTER = 2
"""A message that was recovered this often is tried alone: innocents beside it must not be blamed."""
POISON_AFTER = 3
"""Runners that died alone with a message before it is held."""
_TAIL = 4096
"""Bytes at the end of a file in which its last line is looked for."""
_BY_OPERATORS = frozenset({Kind.HELD, Kind.RELEASED, Kind.REQUEUED})
_UNDECIDED = _BY_OPERATORS | {Kind.DATED, Kind.RECOVERED, Kind.COMMITTING, Kind.TROUBLE, Kind.NOTIFIED}
"""What may follow when a message is tried with others beside it, until its outcome."""
_ROOM = 512
"""Bytes of journal that taking a message over, and giving it back, need at most."""
_REPORTS = 10_000
"""Skipped files that are remembered, so that each is reported once."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A message in a runner's hands."""

    locked: LockedMessage
    entry: Entry
    recovered: bool = False
    """It was in `cur/`: an earlier runner had it in hand."""
    died: bool = False
    """That runner died, instead of giving it back."""

    @property
    def id(self) -> str:
        return self.locked.id

    @property
    def suspect(self) -> bool:
        """It was in hand when runners died: try it with nothing beside it."""
        return self.entry.state.recoveries >= SUSPECT_AFTER

    @property
    def poison(self) -> bool:
        """Runners died of it alone: hold it."""
        return self.entry.state.deaths_alone >= POISON_AFTER

    @property
    def returned(self) -> bool:
        """The last that its journal says is that a runner gave it back."""
        unchanged = self.locked.size == self.entry.size
        return unchanged and self.entry.state.hand == Kind.RETURNED


class Suspicion(NamedTuple):
    """What speaks against a suspect; those with less are tried first."""

    waited: bool
    """It was seen to wait while it was alone: what waits for a server keeps the others waiting, too."""
    deaths: int
    """Runners that died alone with it."""


Report = Callable[[Spot, str], None]


class Claims:
    """Takes messages out of `new/`, and over from dead runners."""

    def __init__(self, spool: Spool, clock: Clock, boot: str, on_quarantine: Report, on_skip: Report) -> None:
        """Look at a spool as one runner.

        Args:
            spool: where the messages are.
            clock: what time it is.
            boot: this boot's id (`boot_id`).
            on_quarantine: called for each file that was moved to `corrupt/`, and why.
            on_skip: called once for each file that was skipped because it may be in another's use.
        """
        self._spool = spool
        self._clock = clock
        self._boot = boot
        self._on_quarantine = on_quarantine
        self._on_skip = once(on_skip)
        self._given_back: set[str] = set()
        """Messages whose journal could not be told so."""

    def take(self, name: str) -> Claim | None:
        """Claim a message from `new/`; None when it is not to be had, or not to be sent.

        Raises:
            OSError: the spool cannot be worked with (read-only, full, out of descriptors); the message is in
                `new/`, or in `cur/` for the next recovery.
        """
        spot = Spot(Place.NEW, name)
        locked = self._lock(spot)
        if locked is None:
            return None
        try:
            if self._move(locked, Move.CLAIM):
                return self._read(locked, recovered=False)
        except OSError:
            if locked.spot.place is Place.CUR:
                self._return(locked)
            locked.release()
            raise
        except BaseException:
            locked.release()
            raise
        locked.release()
        return None

    def recover(self, name: str) -> Claim | None:
        """Take over a message in `cur/` whose runner died or gave it up; None when a runner has it.

        Raises:
            OSError: as `take`.
        """
        locked = self._lock(Spot(Place.CUR, name))
        if locked is None:
            return None
        try:
            died = name not in self._given_back and not _is_given_back(locked)
            self._given_back.discard(name)
            if died:
                # Before anything is parsed: if the parsing kills us, the next one must know that we tried.
                self._make_room(locked)
                self._append(locked, Kind.RECOVERED)
            return self._read(locked, recovered=True, died=died)
        except OSError:
            self._return(locked)
            locked.release()
            raise
        except BaseException:
            locked.release()
            raise

    def suspicion(self, name: str) -> Suspicion | None:
        """Tell how much speaks against a message in `cur/`, if `recover` would give it out as a suspect."""
        try:
            with View.open(self._spool, Spot(Place.CUR, name)) as view:
                tail = _tail(view.fd)
        except (OSError, Corrupt):
            return None
        waited = last_kind(tail, _UNDECIDED) == Kind.ACCOMPANIED
        # No more than the last lines are read here: what kills its reader must be marked as recovered before.
        state = fold((), decode(tail), boot=self._boot)
        if not waited and state.recoveries + 1 < SUSPECT_AFTER:
            return None
        return Suspicion(waited, state.deaths_alone + (state.hand == Kind.ALONE))

    def mark_alone(self, claim: Claim) -> None:
        """Record that from here on this message is the only one in hand; raises OSError.

        There is room for `give_back` then, or nothing is written.
        """
        self._make_room(claim.locked)
        self._append(claim.locked, Kind.ALONE)

    def mark_accompanied(self, claim: Claim) -> None:
        """Record that from here on others may be in hand beside it; raises OSError."""
        self._append(claim.locked, Kind.ACCOMPANIED)

    def give_back(self, claim: Claim) -> None:
        """Record, if the disk lets us, that no runner has died with this message, though none finished it."""
        self._return(claim.locked)

    def _return(self, locked: LockedMessage) -> None:
        try:
            if not _is_given_back(locked):
                self._append(locked, Kind.RETURNED)
        except OSError:
            if len(self._given_back) < _REPORTS:
                self._given_back.add(locked.id)

    @staticmethod
    def _make_room(locked: LockedMessage) -> None:
        """Have the filesystem set blocks aside for two lines; raises OSError, and nothing was written."""
        locked.reserve(_ROOM)
        locked.give_back(_ROOM)  # The blocks stay; no other line need find room beside them.

    def _append(self, locked: LockedMessage, kind: Kind) -> None:
        locked.append(Event(at=self._now(), event=kind, boot=self._boot))

    def requeue_due(self, spot: Spot) -> LockedMessage | None:
        """Move a message from a due bucket to `new/`; None: it was not moved.

        Trouble with this file alone is reported, and it stays where it was. Of one that is moved, release the
        lock when the move is durable.

        Raises:
            OSError: the spool cannot be worked with.
        """
        locked = None
        try:
            locked = self._lock(spot)
            if locked is None:
                return None
            if self._move(locked, Move.REQUEUE):
                return locked
            locked.release()
        except OSError as error:
            if locked:
                locked.release()
            if error.errno in SPOOL_WIDE:
                raise
            self._on_skip(spot, f"it cannot be moved to new/: {error.strerror}")
        return None

    def quarantine(self, claim: Claim, reason: str) -> None:
        """Put a claimed message away as unreadable; raises OSError."""
        self._put_away(claim.locked, reason)

    def _now(self) -> str:
        return clock.rfc3339(self._clock())

    def _lock(self, spot: Spot) -> LockedMessage | None:
        try:
            locked = LockedMessage.take(self._spool, spot)
        except Missed:
            return None
        except Unsafe as unsafe:
            if unsafe.movable:
                self._quarantine_by_name(spot, str(unsafe))
            else:
                self._on_skip(spot, str(unsafe))
            return None
        if locked.also and is_met_earlier(spot.place, locked.also):
            locked.release()
            return None
        return locked

    def _move(self, locked: LockedMessage, move: Move) -> bool:
        """Move a file; False: it stays, for a reason that is its own and says nothing about the spool."""
        spot = locked.spot
        try:
            locked.move(move)
        except FileExistsError:
            # Somebody's cp: whichever of the two is the message, the other must not be sent as well.
            self._on_skip(spot, f"the same id is already in {target(move, spot.place)}/")
            return False
        return True

    def _quarantine_by_name(self, spot: Spot, reason: str) -> None:
        try:
            quarantine(self._spool, spot)
        except (FileNotFoundError, FileExistsError) as error:
            self._on_skip(spot, f"{reason}; it cannot be moved to corrupt/: {error.strerror}")
        else:
            self._on_quarantine(spot, reason)

    def _read(self, locked: LockedMessage, *, recovered: bool, died: bool = False) -> Claim | None:
        try:
            entry = locked.read(boot=self._boot)
            if entry.state.notices:
                # First: what is owed to the sender is whole, even if the message itself is damaged.
                finish(locked, entry.state, recovered=recovered)
            locked.check(entry)
            if entry.state.accepted and entry.state.accepted.once:
                idempotency.confirm(locked, entry.state.accepted.once)
        except Corrupt as corrupt:
            self._put_away(locked, str(corrupt))
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # A bad sector under one message must not stop the others.
            self._return(locked)
            self._on_skip(locked.spot, f"it cannot be read: {error.strerror}")
            locked.release()
            return None
        return Claim(locked, entry, recovered, died)

    def _put_away(self, locked: LockedMessage, reason: str) -> None:
        spot = locked.spot
        moved = False
        with locked:
            try:
                moved = self._move(locked, Move.QUARANTINE)
                locked.settle()
            finally:
                if not moved and spot.place is Place.CUR:
                    self._return(locked)
        if moved:
            self._on_quarantine(spot, reason)


def once(report: Report) -> Report:
    """Report each file, with one reason, once: a run that goes on for weeks looks at it every minute."""
    told: set[tuple[Spot, str]] = set()

    def tell(spot: Spot, reason: str) -> None:
        if (spot, reason) in told:
            return
        if len(told) >= _REPORTS:
            told.clear()
        told.add((spot, reason))
        report(spot, reason)

    return tell


def _is_given_back(locked: LockedMessage) -> bool:
    """Tell whether its last runner gave it back in order; what operators write after that is ignored."""
    return last_kind(_tail(locked.fd), _BY_OPERATORS) == Kind.RETURNED


def _tail(fd: int) -> bytes:
    return os.pread(fd, _TAIL, max(0, os.fstat(fd).st_size - _TAIL))
