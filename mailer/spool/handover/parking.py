"""Park a message during a handover where no runner sends it, and afterwards move it to its right place."""

from math import inf

from mailer.spool.changes import Change, DurableMove, Written
from mailer.spool.fold import advance
from mailer.spool.journal import Event
from mailer.spool.layout import Place, bucket_for, scheduled_bucket_for
from mailer.spool.locked_message import LockedMessage
from mailer.spool.message_state import Disposition, State
from mailer.spool.transitions import Move

RESTING = {Place.HOLD, Place.FAILED}
"""Places from which no runner takes a message, so that it stays there during a handover."""


def park(locked: LockedMessage) -> Change:
    """Return the change that parks a message and writes the journal line that says so."""
    return Written(locked) if locked.spot.place in RESTING else DurableMove(locked, Move.HOLD)


def unpark(locked: LockedMessage, state: State, event: Event, now: float) -> Change:
    """Return the change that ends a handover, and moves the message to the place that its journal calls for.

    Args:
        locked: the message.
        state: the fold of its journal.
        event: the line that ends the handover.
        now: seconds since the epoch.

    Raises:
        OSError: the line cannot be written; the handover has not ended.
    """
    state = advance(state, (event,))
    disposition = state.disposition(now, inf)
    if locked.spot.place is not Place.HOLD or disposition is Disposition.HOLD:
        locked.append(event)
        return Written(locked)
    if disposition is Disposition.WAIT and state.next is not None:
        name = bucket_for if state.scheduled is None else scheduled_bucket_for
        return Unparking(locked, Move.RESUME, event, name(state.next))
    return Unparking(locked, Move.REQUEUE, event)


class Unparking(DurableMove):
    """Moves a message out of `hold/`, and only then writes the line by which it may be sent.

    In the other order, a crash between the two would leave it in `hold/`, where no program moves it. In this
    order, a crash leaves it where a run finds it, and the run parks it again.
    """

    def __init__(self, locked: LockedMessage, move: Move, event: Event, bucket: str = "") -> None:
        super().__init__(locked, move, bucket)
        self._event = event

    def begin_sync(self) -> None:
        """Do nothing: there is no new line yet."""

    def sync(self) -> None:
        """Do nothing: there is no new line yet."""

    def sources(self) -> tuple[str, ...]:
        left = super().sources()
        self._locked.append(self._event)
        self._locked.sync()
        return left
