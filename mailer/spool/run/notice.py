"""Notifications about a message (RFC 3464), each of which is queued exactly once, whichever program dies.

A program that makes one holds the lock of the message that it is about, its parent, and proceeds in this
order:

1. the notification is complete and durable in `tmp/` (`Written`);
2. a `notified` line in the parent's journal names it, and is durable;
3. it moves to `new/`, durably (`Sent` does steps 2 and 3);
4. only then the parent leaves `cur/`.

If the program dies before step 2 is done, it leaves a file in `tmp/` that no journal names, and the next
attempt makes another notification. After that, the next claim of the parent finds the line and does step 3
unless it is done (`finish`). A line that names a notification which has left `tmp/` means that it is queued
or delivered.
"""

import contextlib
import errno
import os

from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.incoming import Incoming
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import Busy, Gone, LockedMessage, Unsafe
from mailer.spool.message_state import State
from mailer.spool.scan import QUEUE, exists, find
from mailer.spool.transitions import Move
from mailer.spool.view.inspect import View

_LOOKS = 10
"""How often a parent is searched for if it moves during each search."""


class Written:
    """Step 1, as a `Change`: make the notification durable in `tmp/`."""

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
    """Steps 2 and 3, as a `Change`; the parent's journal must have the `notified` line already."""

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
        """Do nothing: the line remains, and the next claim of the parent finishes it."""


def complete(parent: LockedMessage, state: State, *, recovered: bool) -> None:
    """Queue the notifications that a journal names and that a dead runner left in `tmp/`.

    Args:
        parent: the message that they are about.
        state: the fold of its journal.
        recovered: its runner died, so that its renames may not be durable yet.

    Raises:
        OSError: this failed, and the parent must stay where it is.
    """
    spool = parent.spool
    left = [name for name in state.notices if exists(spool, Spot(Place.TMP, name))]
    if left:
        # The line that we read may not be durable yet.
        parent.sync()
    with contextlib.ExitStack() as moved:
        entered = [locked for name in left if (locked := _enter(spool, name, moved))]
        if left or (recovered and state.notices):
            spool.sync_directory(Place.NEW)
            for locked in entered:
                locked.leave()
            spool.sync_directory(Place.TMP)


def _enter(spool: Spool, name: str, moved: contextlib.ExitStack) -> LockedMessage | None:
    """Move a notification to `new/`; its lock is held until the stack is left."""
    try:
        locked = moved.enter_context(LockedMessage.lock(spool, Spot(Place.TMP, name)))
        locked.move(Move.COMMIT)
    except (Gone, Unsafe):
        return None  # It is not a spool file, so it is not a notification, whatever its name.
    except FileExistsError:
        return None  # The same notification is in new/ already; this one is a copy made by hand.
    except Busy as error:
        # A sweep holds the lock just now, to check the file's age.
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), name) from error
    return locked


def is_awaited(spool: Spool, locked: LockedMessage) -> bool:
    """Return whether a file in `tmp/` is a notification that its parent's journal names, and so must stay.

    If the parent cannot be read because it moves each time, the file is kept, and checked again later.

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
            continue  # The parent has moved since it was found.
    return True


def _notices(spool: Spool, spot: Spot) -> tuple[str, ...]:
    try:
        with View.open(spool, spot) as view:
            return view.entry().state.notices
    except Corrupt:
        return ()
