"""Move a message, after an attempt, durably to the directory that its journal calls for."""

import contextlib

from mailer.send.dsn.notify import Notifier
from mailer.spool.background_close import BackgroundClose
from mailer.spool.changes import Change, DurableMove, left_behind
from mailer.spool.committer import Committer
from mailer.spool.layout import Place, bucket_for, day_for, scheduled_bucket_for
from mailer.spool.message_state import Disposition, State
from mailer.spool.run.claim import Claim
from mailer.spool.transitions import Move

_FINISH, _WAIT, _FINISHING = Disposition.FINISH, Disposition.WAIT, Move.FINISH
_MOVES = {
    Disposition.FAIL: Move.FAIL,
    Disposition.HOLD: Move.HOLD,
    Disposition.ATTEMPT: Move.UNCLAIM,
}


def _durable_move(
    claim: Claim, state: State, disposition: Disposition, *, now: float, archive: bool
) -> Change | None:
    """Return the move that must be made durable; None if the message's move need not be."""
    if disposition is _FINISH:
        return DurableMove(claim.locked, Move.ARCHIVE, day_for(now)) if archive else None
    if disposition is _WAIT:
        assert state.next is not None
        name = bucket_for if state.scheduled is None else scheduled_bucket_for
        return DurableMove(claim.locked, Move.DEFER, name(state.next))
    return DurableMove(claim.locked, _MOVES[disposition])


class Settler:
    """Moves claimed messages to where they belong after an attempt."""

    def __init__(
        self,
        committer: Committer,
        background: BackgroundClose,
        notifier: Notifier,
        *,
        horizon: float,
        archive: bool,
    ) -> None:
        """Prepare.

        Args:
            committer: makes moves durable, many together.
            background: closes the descriptors of removed files.
            notifier: queues the notifications to senders before the message moves.
            horizon: the longest backoff, in seconds.
            archive: whether to keep a copy of sent messages.
        """
        self._committer = committer
        self._background = background
        self._notifier = notifier
        self._horizon = horizon
        self._archive = archive

    async def settle(self, claim: Claim, state: State, now: float) -> Disposition:
        """Queue the notifications that are due, and move a message as its state calls for.

        The caller keeps the lock, unless the file is removed.

        Returns:
            What was done. ATTEMPT means that the message went back to `new/`, to be tried by another run.

        Raises:
            OSError: the message could not be moved. It is in `cur/`, where the next run finds it, and its
                journal says what was to be done.
        """
        state = await self._notifier.notify(claim, state, now)
        disposition = state.disposition(now, self._horizon)
        change = _durable_move(claim, state, disposition, now=now, archive=self._archive)
        if change is None:
            locked = claim.locked
            left = (*left_behind(locked.spot), *locked.leave())
            locked.move(_FINISHING)
            for directory in left:
                self._committer.sync_soon(directory)
            self._background.close(locked.detach())
        else:
            await self._committer.commit_in_loop(change)
        return disposition

    def put_back(self, claim: Claim) -> None:
        """Move a message that could not be tried back to `new/`, if the disk allows.

        Left in `cur/`, it would look as if its runner had died, and after a few such runs on a full disk it
        would be held as a poison message.
        """
        if claim.locked.spot.place is Place.CUR:
            with contextlib.suppress(OSError):
                claim.locked.sync()
                claim.locked.move(Move.UNCLAIM)
                claim.locked.settle()
