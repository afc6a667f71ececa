"""The operator's actions on single messages: retry, hold, release, remove.

Each takes the file's lock. For a message that a runner holds this raises `Busy`, and nothing is changed.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec
from msgspec.structs import replace

from mailer.mail import clock
from mailer.spool.changes import (
    FEW,
    Change,
    DurableMove,
    Removal,
    Settled,
    Written,
    make_all_durable,
    make_durable,
)
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.handover.parking import unpark
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage, Unsafe, remove_quarantined
from mailer.spool.message_state import State
from mailer.spool.syscalls import sync_filesystem
from mailer.spool.transitions import TRANSITIONS, Move


class Refused(ValueError):
    """The message's place does not allow the action; the text says so."""


class Begun(msgspec.Struct, frozen=True):
    """An action that is recorded in a message's journal; the lock is held until `finish`."""

    locked: LockedMessage
    change: Change

    def complete(self) -> None:
        """Make it durable. After an OSError the message is in one of two places, and its journal decides."""
        with self.locked:
            make_durable(self.locked.spool, self.change)


def complete_together(spool: Spool, begun: Sequence[Begun]) -> list[OSError | None]:
    """Finish the actions on many messages with few syncs; return the error of each, or None.

    The messages must be few enough that all their files can be open. For more than a few the whole filesystem
    is synced, which may have much else to write.
    """
    if len(begun) > FEW and sync_filesystem(spool.root):
        for each in begun:
            each.locked.is_synced = True
    try:
        return make_all_durable(spool, [each.change for each in begun])
    finally:
        for each in begun:
            each.locked.release()


@contextmanager
def _begun(spool: Spool, spot: Spot) -> Iterator[LockedMessage]:
    """Take a message's lock, and give it up if the block fails."""
    locked = LockedMessage.lock(spool, spot)
    try:
        yield locked
    except BaseException:
        locked.release()
        raise


class Operator(msgspec.Struct, frozen=True):
    """An operator, at the command line or on the admin page."""

    spool: Spool
    name: str
    """The operator's name, for the journal."""

    def retry(self, spot: Spot, now: float) -> None:
        """Try a message's open and failed recipients at the next run, and restart its maximum age.

        Raises:
            Refused: it is quarantined.
            Missed, Unsafe, Corrupt, OSError: it could not be locked, read or moved; it is where it was.
        """
        self.retrying(spot, now).complete()

    def hasten(self, spot: Spot, now: float) -> None:
        """Try a message's open recipients at the next run; if there are none, do as `retry`.

        This is for many messages together. An operator who wants waiting mail tried does not mean recipients
        that were refused in the meantime: their sender has been notified. Raises as `retry`.
        """
        self.hastening(spot, now).complete()

    def retrying(self, spot: Spot, now: float) -> "Begun":
        """Record a `retry`, for the caller to finish; this and the following methods raise as `retry`."""
        return self._requeue(spot, now, reopen=True)

    def hastening(self, spot: Spot, now: float) -> "Begun":
        """Record a `hasten`, for the caller to finish."""
        return self._requeue(spot, now, reopen=False)

    def _requeue(self, spot: Spot, now: float, *, reopen: bool) -> "Begun":
        ready = spot.place in {Place.NEW, Place.CUR}
        if not ready:
            self._allow(Move.REQUEUE, spot)
        with _begun(self.spool, spot) as locked:
            state = _not_moving(locked)
            to = () if reopen else tuple(standing.address for standing in state.open)
            locked.append(replace(self._event(Kind.REQUEUED, now), to=to))
            return Begun(locked, Written(locked) if ready else DurableMove(locked, Move.REQUEUE))

    def hold(self, spot: Spot, now: float, reason: str = "") -> None:
        """Keep a message from being sent until it is released or retried; raises as `retry`."""
        self.holding(spot, now, reason).complete()

    def holding(self, spot: Spot, now: float, reason: str = "") -> "Begun":
        """Record a `hold`, for the caller to finish.

        One of failed mail that a fault ended may have left the mail under both names. Given again, it removes
        the other: no run does.
        """
        if spot.place is not Place.HOLD:
            self._allow(Move.HOLD, spot)
        with _begun(self.spool, spot) as locked:
            _not_moving(locked)
            if spot.place is Place.HOLD:
                if not locked.also:
                    self._allow(Move.HOLD, spot)
                return Begun(locked, Settled(locked))
            locked.append(self._event(Kind.HELD, now, reason or f"held by {self.name}"))
            return Begun(locked, DurableMove(locked, Move.HOLD))

    def release(self, spot: Spot, now: float) -> None:
        """Release a held message, which continues as before; raises as `retry`."""
        self.releasing(spot, now).complete()

    def releasing(self, spot: Spot, now: float) -> "Begun":
        """Record a `release`, for the caller to finish."""
        if spot.place is not Place.HOLD:
            raise Refused(f"it is not held: it is in {spot.place}/")
        with _begun(self.spool, spot) as locked:
            _not_moving(locked)
            locked.append(self._event(Kind.RELEASED, now))
            return Begun(locked, DurableMove(locked, Move.REQUEUE))

    def taking(self, spot: Spot, now: float) -> "Begun":
        """Record that a message is sent from here, on the operator's word that the other spool never will.

        This ends a handover whose other side is lost. Otherwise raises as `retry`, and so do others.
        """
        if spot.place is Place.CORRUPT:
            raise Refused("it is damaged, and in corrupt/")
        with _begun(self.spool, spot) as locked:
            state = locked.read().state
            if state.move is None:
                raise Refused("it is not being moved")
            kind = Kind.ARRIVED if state.move.event == Kind.ARRIVING else Kind.STAYED
            event = replace(self._event(kind, now), move=state.move.move)
            return Begun(locked, unpark(locked, state, event, now))

    def remove(self, spot: Spot) -> None:
        """Delete a message, or another entry that was quarantined; this cannot be undone.

        Raises:
            Refused, Missed, Unsafe, OSError: it is where it was.
        """
        begun = self.removing(spot)
        if begun:
            begun.complete()

    def removing(self, spot: Spot) -> "Begun | None":
        """Prepare to `remove`, for the caller to finish; None if it was no file, and is removed already."""
        self._allow(Move.REMOVE, spot)
        try:
            with _begun(self.spool, spot) as locked:
                if spot.place is not Place.CORRUPT:
                    _check_removable(locked)
                return Begun(locked, Removal(locked))
        except Unsafe as unsafe:
            if spot.place is not Place.CORRUPT or not unsafe.movable:
                raise
            self._remove_quarantined(spot)
            self.spool.sync_directory(spot.directory)
            return None

    def _remove_quarantined(self, spot: Spot) -> None:
        try:
            remove_quarantined(self.spool, spot)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise Refused("it is a directory that is not empty: check its content, and remove it") from error

    def _allow(self, move: Move, spot: Spot) -> None:
        if spot.place not in TRANSITIONS[move][0]:
            raise Refused(f"it is in {spot.place}/, and this is not possible from there")

    def _event(self, kind: Kind, now: float, reason: str = "") -> Event:
        return Event(at=clock.rfc3339(now), event=kind, by=self.name, reason=reason)


def _check_removable(locked: LockedMessage) -> None:
    """Refuse to remove a message that another spool may be storing: neither spool would have it then."""
    with suppress(Corrupt, OSError):  # What cannot be read can still be removed.
        move = locked.read().state.move
        if move and move.event == Kind.MOVING:
            _not_moving(locked)


def _not_moving(locked: LockedMessage) -> State:
    """Return the state of a message that is not being handed over to another spool.

    Raises:
        Refused: it is being handed over.
        Corrupt, OSError: it cannot be read.
    """
    state = locked.read().state
    if state.move:
        raise Refused(f"{state.held}, or, if the other spool is lost, `--take {locked.id}`")
    return state
