"""The source's side of a handover: a message stays locked from the first step until the target has it.

These are its states:

    place of the message      line            sent from here
    any of the queue          (none)          yes
    hold/, failed/            `moving`        no: the target may be storing it
    hold/, failed/            `moved`         never: it is the target's
    deleted                                   the target has confirmed that it may send it
    where its journal says    `stayed`        yes: the target has said that it does not have it
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from mailer.mail import clock
from mailer.spool import idempotency
from mailer.spool.changes import Change, Removal, Written
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.handover.parking import RESTING, park, unpark
from mailer.spool.handover.wire import CHUNK, Greeting, Key, Offer
from mailer.spool.ids import new_id
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage
from mailer.spool.run.claim import is_given_back
from mailer.spool.run.notice import complete
from mailer.spool.syscalls import boot_id, read_at

MOVABLE = (Place.NEW, Place.CUR, Place.RETRY, Place.HOLD, Place.FAILED)
"""Where messages are that can be handed over; those in `corrupt/` cannot be read."""


class NotMovable(ValueError):
    """The message cannot be handed over; the text says why."""


class Between(NotMovable):
    """Its handover has begun and not ended, so neither side sends it."""


class Leaving:
    """A message that is being handed over. Its lock is held until `release`."""

    def __init__(self, locked: LockedMessage, entry: Entry, where: Greeting) -> None:
        self.locked = locked
        self.entry = entry
        self._where = where
        self.id = locked.id
        self.spot = locked.spot
        """Where it was."""
        self.move = entry.state.move.move if entry.state.move else ""

    @classmethod
    def lock(cls, spool: Spool, spot: Spot, where: Greeting, *, resumes: bool) -> Self:
        """Lock a message and check that it can be handed over.

        Args:
            spool: the spool.
            spot: where it is.
            where: the other spool.
            resumes: whether its handover to that spool must have begun before; if not, none may have begun.

        Raises:
            Between: a handover was begun before, and is not to be resumed, or not with this spool.
            NotMovable: it must not be handed over.
            Missed, Unsafe, Corrupt, OSError: it cannot be locked or read.
        """
        if spot.place not in MOVABLE:
            raise NotMovable(f"it is in {spot.place}/")
        locked = LockedMessage.lock(spool, spot)
        try:
            entry = locked.read()
            move = entry.state.move
            # Otherwise the target may have the whole message already; it checks the bytes that it gets.
            if move is None:
                locked.check(entry)
            _check(move, entry.state.held, where, resumes=resumes)
        except BaseException:
            locked.release()
            raise
        return cls(locked, entry, where)

    def is_parked(self) -> bool:
        """Return whether its journal says that it is being handed over; True if that cannot be read."""
        try:
            return self.locked.read().state.move is not None
        except (Corrupt, OSError):
            return True

    @property
    def resumes(self) -> bool:
        """Whether its handover began before, so that the target may have it already."""
        return self.entry.state.move is not None

    @property
    def is_given_up(self) -> bool:
        """Whether it belongs to the target already."""
        move = self.entry.state.move
        return move is not None and move.event == Kind.MOVED

    def begin(self, by: str, now: float) -> Change:
        """Park it; return the change that must be durable before the target is asked. Raises OSError."""
        locked, state = self.locked, self.entry.state
        if self.resumes and locked.spot.place in RESTING:
            return Written(locked)
        died = locked.spot.place is Place.CUR and not is_given_back(locked)
        # As a claim does first: the message leaves this spool, but its notifications and its key stay here.
        if state.notices:
            complete(locked, state, recovered=died)
        if state.accepted and state.accepted.once:
            idempotency.confirm(locked, state.accepted.once)
        if self.resumes:
            return park(locked)
        if state.arrived_by:
            idempotency.confirm_arrival(locked, state.arrived_by)
        if died:
            locked.append(Event(at=clock.rfc3339(now), event=Kind.RECOVERED, boot=boot_id()))
        self.move = new_id(now)
        locked.append(self._leaving(Kind.MOVING, now, by))
        return park(locked)

    def offer(self) -> Offer:
        """Describe it for the target; raises OSError."""
        accepted = self.entry.state.accepted
        names = accepted.once.split() if accepted else []
        known = {name: idempotency.read(self.locked.spool, name) for name in names}
        keys = tuple(Key(name, each.content) for name, each in known.items() if each.id == self.id)
        return Offer(self.id, self.move, self.locked.size, self.spot.place is Place.FAILED, keys)

    def pieces(self) -> Iterator[bytes]:
        """Yield the file; raises OSError."""
        size = self.locked.size
        for at in range(0, size, CHUNK):
            yield read_at(self.locked.fd, min(CHUNK, size - at), at)

    def give_up(self, now: float) -> Change:
        """Give it to the target; raises OSError."""
        self.locked.append(self._leaving(Kind.MOVED, now))
        return Written(self.locked)

    def stay(self, why: str, now: float) -> Change:
        """End the handover without effect; raises OSError."""
        state = self.locked.read().state
        stayed = Event(at=clock.rfc3339(now), event=Kind.STAYED, move=self.move, reason=why)
        return unpark(self.locked, state, stayed, now)

    def remove(self) -> Change:
        """Delete the file; the message belongs to the target now."""
        return Removal(self.locked)

    def _leaving(self, kind: Kind, now: float, by: str = "") -> Event:
        to = self._where
        return Event(
            at=clock.rfc3339(now), event=kind, move=self.move, reason=f"to {to.place}", spool=to.spool, by=by
        )

    def release(self) -> None:
        with suppress(OSError):
            self.locked.release()


def _check(move: Event | None, held: str, where: Greeting, *, resumes: bool) -> None:
    if (move is None and resumes) or (move and move.event == Kind.ARRIVING):
        raise NotMovable(held or "it is not being moved")
    if move and not resumes:
        raise Between(held)
    if move and move.spool != where.spool:
        raise Between(_elsewhere(move, where))


def _elsewhere(move: Event, where: Greeting) -> str:
    if move.reason != f"to {where.place}":
        return f"it is on its way {move.reason}: resume there"
    return (
        f"it is on its way {move.reason}, which has another word in .mailer-spool now. If it is the same "
        f"spool, and lost its mark, write there in place of the present line: Spool: {move.spool}"
    )
