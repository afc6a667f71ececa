"""Notifications about a message (RFC 3464), each of which enters the queue exactly once, whatever dies when.

Whoever makes one holds the lock of the message that it is about, its parent, and goes in this order:

1. the notification is complete and durable in `tmp/` (`Written`);
2. a `notified` line in the parent's journal names it, and is durable;
3. it moves to `new/`, durably (both are `Sent`);
4. only then the parent leaves `cur/`.

Before 2 counts, a death leaves a file in `tmp/` that nobody names, and the next attempt makes another; from
then on the next claim of the parent finds the line, and does step 3 if it is not done (`finish`). The line
of a notification that has left `tmp/` says that it is on its way, or delivered.
"""

import contextlib
import errno
import os

from mailer.spool.entry import Corrupt
from mailer.spool.incoming import Incoming
from mailer.spool.journal import State
from mailer.spool.layout import Place, Spool, Spot
from mailer.spool.locked import Busy, Gone, LockedMessage, Unsafe
from mailer.spool.scan import QUEUE, find
from mailer.spool.transitions import Move
from mailer.spool.view.inspect import View

_LOOKS = 10
"""How often a parent that moves while we look is looked for."""


class Written:
    """The first step, a `Change`."""

    def __init__(self, notification: Incoming) -> None:
        """Args: notification: sealed."""
        self._notification = notification

    def begin_sync(self) -> None:
        self._notification.begin_sync()

    def sync(self) -> None:
        self._notification.sync()

    def move(self) -> None:
        """Nothing moves: that its name is durable where it is, is the point."""

    def directories(self) -> tuple[str, ...]:
        return (Place.TMP.value,)

    def sources(self) -> tuple[str, ...]:
        return ()

    def undo(self) -> None:
        self._notification.undo()


class Sent:
    """The second and the third step, a `Change`; the parent's journal has the `notified` line already."""

    def __init__(self, parent: LockedMessage, notification: Incoming) -> None:
        self._parent = parent
        self._notification = notification

    def begin_sync(self) -> None:
        self._parent.begin_sync()

    def sync(self) -> None:
        self._parent.sync()

    def move(self) -> None:
        self._notification.move_whole()

    def directories(self) -> tuple[str, ...]:
        return (Place.NEW.value,)

    def sources(self) -> tuple[str, ...]:
        self._notification.leave()
        return (Place.TMP.value,)

    def undo(self) -> None:
        """Nothing to take back: the line stands, and the next claim of the parent finishes it."""


def finish(parent: LockedMessage, state: State, *, recovered: bool) -> None:
    """Do what a runner that died has left undone of the notifications that a journal names.

    Args:
        parent: the message that they are about.
        state: the fold of its journal.
        recovered: its runner died; what it had renamed may not be durable yet.

    Raises:
        OSError: it could not be done, and the parent must stay where it is.
    """
    spool = parent.spool
    left = [name for name in state.notices if _exists(spool, Spot(Place.TMP, name))]
    if left:
        # The line that we read may be in memory only.
        parent.sync()
    with contextlib.ExitStack() as moved:
        entered = [locked for name in left if (locked := _enter(spool, name, moved))]
        if left or (recovered and state.notices):
            spool.sync_directory(Place.NEW)
            for locked in entered:
                locked.leave()
            spool.sync_directory(Place.TMP)


def _exists(spool: Spool, spot: Spot) -> bool:
    try:
        os.stat(spot.path, dir_fd=spool.root, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _enter(spool: Spool, name: str, moved: contextlib.ExitStack) -> LockedMessage | None:
    """Move a notification into the queue; its lock is kept until the stack is left."""
    try:
        locked = moved.enter_context(LockedMessage.take(spool, Spot(Place.TMP, name)))
        locked.move(Move.COMMIT)
    except (Gone, Unsafe):
        return None  # A file that is not ours is not a notification, whatever its name.
    except FileExistsError:
        return None  # What is in new/ already is the same one; somebody's `cp` stays behind.
    except Busy as error:
        # A sweep looks how old it is, for this instant.
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), name) from error
    return locked


def is_awaited(spool: Spool, locked: LockedMessage) -> bool:
    """Tell whether a file in `tmp/` is a notification that its parent's journal names: no litter, but mail.

    A parent that moves each time we would read it may name it: the file is kept, and looked at again later.

    Raises:
        OSError: it cannot be read.
    """
    try:
        about = locked.read().state.about
    except Corrupt:
        return False
    if not about:
        return False
    for _ in range(_LOOKS):
        try:
            return any(
                locked.id in _notices(spool, spot) for spot in find(spool, about, (*QUEUE, Place.SENT))
            )
        except FileNotFoundError:
            continue  # The parent moved on since it was found.
    return True


def _notices(spool: Spool, spot: Spot) -> tuple[str, ...]:
    try:
        with View.open(spool, spot) as view:
            return view.entry().state.notices
    except Corrupt:
        return ()
