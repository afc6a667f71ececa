"""What the operator does to single messages: retry, hold, release, remove.

Each takes the file's lock, so a message that a runner has in hand answers `Busy` and is left alone.
"""

import errno
from dataclasses import dataclass

from msgspec.structs import replace

from mailer.mail import clock
from mailer.spool.changes import DurableMove, left_behind, make_durable
from mailer.spool.held import Held, Unsafe, remove_quarantined
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, Spool, Spot
from mailer.spool.transitions import TRANSITIONS, Move


class Refused(ValueError):
    """The message's place does not allow that; the text says so."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody at the command line or the admin page."""

    spool: Spool
    name: str
    """Who it is, for the journal."""

    def retry(self, spot: Spot, now: float) -> None:
        """Try a message's open and failed recipients at the next run, and begin its maximum age anew.

        Raises:
            Refused: it is quarantined.
            Missed, Unsafe, Corrupt, OSError: it could not be taken, read or moved; it is where it was.
        """
        self._requeue(spot, now, reopen=True)

    def hasten(self, spot: Spot, now: float) -> None:
        """Try a message's open recipients at the next run; if it has none, do as `retry`; raises as that.

        It is for many messages at once. Who wants waiting mail tried does not mean those that were refused
        meanwhile: their sender has been told.
        """
        self._requeue(spot, now, reopen=False)

    def _requeue(self, spot: Spot, now: float, *, reopen: bool) -> None:
        ready = spot.place in {Place.NEW, Place.CUR}
        if not ready:
            self._allow(Move.REQUEUE, spot)
        with Held.take(self.spool, spot) as held:
            state = held.read().state
            to = () if reopen else tuple(standing.address for standing in state.open)
            held.append(replace(self._event(Kind.REQUEUED, now), to=to))
            if ready:
                held.sync()
            else:
                make_durable(self.spool, DurableMove(held, Move.REQUEUE))

    def hold(self, spot: Spot, now: float, reason: str = "") -> None:
        """Keep a message from being sent until it is released or retried; raises as `retry`."""
        self._allow(Move.HOLD, spot)
        with Held.take(self.spool, spot) as held:
            held.read()
            held.append(self._event(Kind.HELD, now, reason or f"held by {self.name}"))
            make_durable(self.spool, DurableMove(held, Move.HOLD))

    def release(self, spot: Spot, now: float) -> None:
        """Let a held message go on as it was; raises as `retry`."""
        if spot.place is not Place.HOLD:
            raise Refused(f"it is not held: it is in {spot.place}/")
        with Held.take(self.spool, spot) as held:
            held.read()
            held.append(self._event(Kind.RELEASED, now))
            make_durable(self.spool, DurableMove(held, Move.REQUEUE))

    def remove(self, spot: Spot) -> None:
        """Delete a message for good, or whatever else was quarantined.

        Raises:
            Refused, Missed, Unsafe, OSError: it is where it was.
        """
        self._allow(Move.REMOVE, spot)
        directories = left_behind(spot)
        try:
            with Held.take(self.spool, spot) as held:
                directories += held.leave()
                held.move(Move.REMOVE)
        except Unsafe as unsafe:
            if spot.place is not Place.CORRUPT or not unsafe.movable:
                raise
            self._remove_quarantined(spot)
        for directory in directories:
            self.spool.sync_directory(directory)

    def _remove_quarantined(self, spot: Spot) -> None:
        try:
            remove_quarantined(self.spool, spot)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise Refused("it is a directory that is not empty: see what is in it, and remove it") from error

    def _allow(self, move: Move, spot: Spot) -> None:
        if spot.place not in TRANSITIONS[move][0]:
            raise Refused(f"it is in {spot.place}/, and from there it cannot be moved")

    def _event(self, kind: Kind, now: float, reason: str = "") -> Event:
        return Event(at=clock.rfc3339(now), event=kind, by=self.name, reason=reason)
