"""Claiming messages: how a runner takes them, and what happens to those that it must not send.

`Claims` is a runner's view of the spool. Each message that it returns is locked, readable, and verified
against its digests; a file that is not is moved to `corrupt/` or skipped.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.spool import idempotency
from mailer.spool.directory import SPOOL_WIDE, Spool
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.fold import fold
from mailer.spool.journal import Event, Kind, decode, last_kind
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import Busy, LockedMessage, Missed, Unsafe, quarantine
from mailer.spool.names import is_handled_elsewhere
from mailer.spool.run.notice import complete
from mailer.spool.transitions import Move, target
from mailer.spool.view.inspect import View

SUSPECT_AFTER = 2
"""A message that was recovered this often is tried alone, so that no other message is blamed for a death."""
POISON_AFTER = 3
"""Runners that must have died with a message as their only one before it is held."""
_NEW, _CLAIM, _RETURNED = Place.NEW, Move.CLAIM, Kind.RETURNED
# As globals, since Python 3.11 takes 15 times as long to look a member up in its enumeration.
_TAIL = 4096
"""Bytes at the end of a file that are searched for its last line."""
_BY_OPERATORS = frozenset({Kind.HELD, Kind.RELEASED, Kind.REQUEUED})
_UNDECIDED = _BY_OPERATORS | {Kind.DATED, Kind.RECOVERED, Kind.COMMITTING, Kind.TROUBLE, Kind.NOTIFIED}
"""Kinds that may follow `accompanied` in a journal before the outcome."""
_ROOM = 512
"""Bytes of journal that are enough for taking a message over and giving it back."""
_REPORTS = 10_000
"""The most skipped files to remember, so that each is reported once."""


class Claim(msgspec.Struct, frozen=True, eq=False):
    """A message that a runner holds."""

    locked: LockedMessage
    entry: Entry
    recovered: bool = False
    """It was found in `cur/`: an earlier runner held it."""
    died: bool = False
    """That runner died instead of giving it back."""

    @property
    def id(self) -> str:
        return self.locked.id

    @property
    def suspect(self) -> bool:
        """Whether runners have died while they held it, so that it is to be tried alone."""
        return self.entry.state.recoveries >= SUSPECT_AFTER

    @property
    def poison(self) -> bool:
        """Whether runners have died while they held nothing else, so that it is to be held."""
        return self.entry.state.deaths_alone >= POISON_AFTER

    @property
    def returned(self) -> bool:
        """Whether the last line of its journal says that a runner gave it back."""
        return self.entry.state.hand == _RETURNED and self.locked.size == self.entry.size


class Suspicion(NamedTuple):
    """How suspect a message is; the least suspect are tried first."""

    waited: bool
    """It was seen to wait while it was alone; one that waits for a server keeps the others waiting, too."""
    deaths: int
    """Runners that died while they held nothing else."""


Report = Callable[[Spot, str], None]


class Claims:
    """Takes messages from `new/`, and those of dead runners from `cur/`."""

    def __init__(self, spool: Spool, clock: Clock, boot: str, on_quarantine: Report, on_skip: Report) -> None:
        """Prepare the view of one runner.

        Args:
            spool: where the messages are.
            clock: returns the current time.
            boot: this boot's id (`boot_id`).
            on_quarantine: called with each file that was moved to `corrupt/`, and the reason.
            on_skip: called once with each file that was skipped because another program may be using it.
        """
        self._spool = spool
        self._clock = clock
        self._boot = boot
        self._on_quarantine = on_quarantine
        self._on_skip = once(on_skip)
        self._given_back: set[str] = set()
        """Messages that were given back although their journal could not take the line."""
        self.is_busy = False
        """Whether another program held the lock of the message that was asked for last."""

    def claim(self, name: str) -> Claim | None:
        """Claim a message from `new/`; None if it cannot be taken, or must not be sent.

        Raises:
            OSError: the spool is unusable (read-only, full, out of descriptors); the message is in `new/`, or
                in `cur/` for the next recovery.
        """
        spot = Spot(_NEW, name)
        locked = self._lock(spot)
        if locked is None:
            return None
        try:
            if self._move(locked, _CLAIM):
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
        """Take over a message in `cur/` whose runner died or gave it back; None if a runner holds it.

        Raises:
            OSError: as for `take`.
        """
        locked = self._lock(Spot(Place.CUR, name))
        if locked is None:
            return None
        try:
            died = name not in self._given_back and not is_given_back(locked)
            self._given_back.discard(name)
            if died:
                # Written before anything is parsed: if parsing kills us, the next runner must know of it.
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
        """Return how suspect a message in `cur/` is; None if `recover` would not return it as a suspect."""
        try:
            with View.open(self._spool, Spot(Place.CUR, name)) as view:
                tail = _tail(view.fd)
        except (OSError, Corrupt):
            return None
        waited = last_kind(tail, _UNDECIDED) == Kind.ACCOMPANIED
        # Only the last lines are read here: a file that may kill its reader must be marked `recovered` first.
        state = fold((), decode(tail), boot=self._boot)
        if not waited and state.recoveries + 1 < SUSPECT_AFTER:
            return None
        return Suspicion(waited, state.deaths_alone + (state.hand == Kind.ALONE))

    def mark_alone(self, claim: Claim) -> None:
        """Record that from here on the runner holds only this message; raises OSError.

        Room for `give_back` is reserved before; if there is none, nothing is written.
        """
        self._make_room(claim.locked)
        self._append(claim.locked, Kind.ALONE)

    def mark_accompanied(self, claim: Claim) -> None:
        """Record that from here on the runner may hold other messages too; raises OSError."""
        self._append(claim.locked, Kind.ACCOMPANIED)

    def give_back(self, claim: Claim) -> None:
        """Record, if the disk permits, that no runner died with this message, though it is not finished."""
        self._return(claim.locked)

    def _return(self, locked: LockedMessage) -> None:
        try:
            if not is_given_back(locked):
                self._append(locked, Kind.RETURNED)
        except OSError:
            if len(self._given_back) < _REPORTS:
                self._given_back.add(locked.id)
        # It stays in `cur/`, so no move will make durable what this runner, or a dead one, recorded.
        with suppress(OSError):
            locked.sync()

    @staticmethod
    def _make_room(locked: LockedMessage) -> None:
        """Have the filesystem allocate blocks for two lines; after an OSError nothing was written."""
        locked.reserve(_ROOM)
        locked.give_back(_ROOM)  # The blocks stay allocated, and other lines may use them.

    def _append(self, locked: LockedMessage, kind: Kind) -> None:
        locked.append(Event(at=self._now(), event=kind, boot=self._boot))

    def requeue_due(self, spot: Spot) -> LockedMessage | None:
        """Move a message from a due bucket to `new/`; return None if it was not moved.

        An error with this file alone is reported, and the file stays. The caller releases the lock of a moved
        message when the move is durable.

        Raises:
            OSError: the spool is unusable.
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
        """Move a claimed message to `corrupt/` as unreadable; raises OSError."""
        self._put_away(claim.locked, reason)

    def _now(self) -> str:
        return clock.rfc3339(self._clock())

    def _lock(self, spot: Spot) -> LockedMessage | None:
        self.is_busy = False
        try:
            locked = LockedMessage.lock(self._spool, spot)
        except Missed as missed:
            self.is_busy = isinstance(missed, Busy)
            return None
        except Unsafe as unsafe:
            if unsafe.movable:
                self._quarantine_by_name(spot, str(unsafe))
            else:
                self._on_skip(spot, str(unsafe))
            return None
        if locked.also and is_handled_elsewhere(spot.place, locked.also):
            locked.release()
            return None
        return locked

    def _move(self, locked: LockedMessage, move: Move) -> bool:
        """Move a file; return False if it must stay for a reason that concerns this file alone."""
        spot = locked.spot
        try:
            locked.move(move)
        except FileExistsError:
            # A copy made with cp: whichever of the two is the message, only one may be sent.
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
                # First, because the notification to the sender is intact even if this message is damaged.
                complete(locked, entry.state, recovered=recovered)
            locked.check(entry)
            if entry.state.accepted and entry.state.accepted.once:
                idempotency.confirm(locked, entry.state.accepted.once)
            if entry.state.arrived_by and entry.state.move is None:
                idempotency.confirm_arrival(locked, entry.state.arrived_by)
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
    """Report each file once for each reason, since a run may last for weeks and look every minute."""
    told: set[tuple[Spot, str]] = set()

    def tell(spot: Spot, reason: str) -> None:
        if (spot, reason) in told:
            return
        if len(told) >= _REPORTS:
            told.clear()
        told.add((spot, reason))
        report(spot, reason)

    return tell


def is_given_back(locked: LockedMessage) -> bool:
    """Return whether the last runner gave it back in order; lines that operators add later are ignored."""
    return last_kind(_tail(locked.fd), _BY_OPERATORS) == Kind.RETURNED


def _tail(fd: int) -> bytes:
    return os.pread(fd, _TAIL, max(0, os.fstat(fd).st_size - _TAIL))
