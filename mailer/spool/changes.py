"""Durable changes to the spool, as three steps in the order that a power cut demands.

1. `sync`: a file's own bytes. A rename that is durable before them would show a file without its end.
2. `move`: the rename.
3. `directories`, then `sources`: fsynced, the destination first, so that no instant has the name in neither.

They are values with steps so that the committer can do each step for many messages at once.
"""

from typing import Protocol

from mailer.spool.layout import Place, Spool, Spot
from mailer.spool.locked import LockedMessage
from mailer.spool.transitions import Move


class Change(Protocol):
    """Something to be made durable."""

    def begin_sync(self) -> None:
        """Have the disk begin with the file's bytes, where that helps; `sync` follows. Never raises."""

    def sync(self) -> None:
        """Make the file's bytes durable; raises OSError.

        It is never called twice for one descriptor: after a failed fsync the kernel has dropped the pages,
        and a second one would succeed and lie.
        """

    def move(self) -> None:
        """Rename the file; raises OSError, and the file is where it was."""

    def directories(self) -> tuple[str, ...]:
        """Name the directories to fsync once `move` is done: those that have the file now."""

    def sources(self) -> tuple[str, ...]:
        """Remove what else names the file, and name the directories that must not have it any more.

        Called once, when the others are durable; these are fsynced then.

        That is not only where it came from: also where it was since a name of it was last made durable. A
        claim and a requeue are not synced, so the directories before may still have the file after a power
        cut.
        """

    def undo(self) -> None:
        """After a failure in any step: leave nothing half done. Raises NotUndone."""


class NotUndone(OSError):
    """A change failed and could not be taken back: whether it happened is open."""


class DurableMove:
    """A message leaves its place for good: deferred, failed, held, archived."""

    def __init__(self, locked: LockedMessage, move: Move, bucket: str = "") -> None:
        self._locked = locked
        self._move = move
        self._bucket = bucket
        self._sources = left_behind(locked.spot)

    def begin_sync(self) -> None:
        self._locked.begin_sync()

    def sync(self) -> None:
        self._locked.sync()

    def move(self) -> None:
        self._locked.move(self._move, self._bucket)

    def directories(self) -> tuple[str, ...]:
        spot = self._locked.spot
        # The bucket may be new. Its own name comes first: a power cut in between would have fsck put a bucket
        # without one into lost+found, and a name of the message with it that nobody can explain.
        return (spot.place.value, spot.directory) if spot.bucket else (spot.directory,)

    def sources(self) -> tuple[str, ...]:
        return (*self._sources, *self._locked.leave())

    def undo(self) -> None:
        """Nothing to take back: the file is in one of two places, and its journal decides."""


class Removal(DurableMove):
    """The operator deletes a message."""

    def __init__(self, locked: LockedMessage) -> None:
        super().__init__(locked, Move.REMOVE)

    def begin_sync(self) -> None:
        """What is in it does not matter any more."""

    def sync(self) -> None:
        """What is in it does not matter any more."""

    def move(self) -> None:
        self._sources += self._locked.leave()
        self._locked.move(Move.REMOVE)

    def directories(self) -> tuple[str, ...]:
        return self._sources

    def sources(self) -> tuple[str, ...]:
        return ()


class Written:
    """A message stays where it is, and its journal is made durable."""

    def __init__(self, locked: LockedMessage) -> None:
        self._locked = locked

    def begin_sync(self) -> None:
        self._locked.begin_sync()

    def sync(self) -> None:
        self._locked.sync()

    def move(self) -> None:
        """Nothing moves."""

    def directories(self) -> tuple[str, ...]:
        return ()

    def sources(self) -> tuple[str, ...]:
        return ()

    def undo(self) -> None:
        """The line stands."""


def left_behind(spot: Spot) -> tuple[str, ...]:
    """Name the directories that may still have a file after a power cut when it leaves a spot now."""
    if spot.place is Place.CUR:
        return (Place.CUR.value, Place.NEW.value)
    return (spot.directory,)


def make_durable(spool: Spool, change: Change) -> None:
    """Do one change at once, in this thread.

    Raises:
        OSError: a step failed and was undone.
        NotUndone: it could not be undone.
    """
    try:
        change.sync()
        change.move()
        for name in change.directories():
            spool.sync_directory(name)
        for name in dict.fromkeys(change.sources()):
            spool.sync_directory(name)
    except OSError:
        change.undo()
        raise
