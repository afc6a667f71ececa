"""Durable changes to the spool, as three steps in the order that protects against a power cut.

1. `sync`: the file's own bytes. If the rename were durable before them, the file could lack its end.
2. `move`: the rename.
3. `directories`, then `sources`: fsynced, the destination first, so that one of them always has the name.

Changes are objects with separate steps so that the committer can do each step for many messages together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from mailer.spool.directory import Spool
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage
from mailer.spool.transitions import Move

FEW = 8
"""Changes up to this number are made durable one by one, without a thread."""


class Change(Protocol):
    """A change to be made durable."""

    def begin_sync(self) -> None:
        """Start writing the file's bytes to the disk, where that helps; `sync` follows. Never raises."""

    def sync(self) -> None:
        """Make the file's bytes durable; raises OSError.

        It is never called twice for one descriptor: after a failed fsync the kernel has dropped the pages,
        and a second one would report success for data that is lost.
        """

    def move(self) -> None:
        """Rename the file; after an OSError it is where it was."""

    def directories(self) -> tuple[str, ...]:
        """Return the directories that now hold the file, to be fsynced after `move`."""

    def sources(self) -> tuple[str, ...]:
        """Remove the file's other names, and return the directories that must no longer hold it.

        Called once, when `directories` are durable; the returned ones are fsynced then.

        They are the directory that the file came from, and all where it was since one of its names was last
        made durable. A claim and a requeue are not synced, so after a power cut the directories before them
        may still hold the file.
        """

    def undo(self) -> None:
        """Clean up after a failure in any step, so that nothing is left half done. Raises NotUndone."""


class NotUndone(OSError):
    """A change failed and could not be undone: it may or may not have happened."""


class DurableMove:
    """A message leaves its place and is not to return there: deferred, failed, held, archived."""

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
        # The bucket may be new, so its own name is synced first. Otherwise fsck could, after a power cut, put
        # the nameless bucket into lost+found, with an unexplained second name of the message in it.
        return (spot.place.value, spot.directory) if spot.bucket else (spot.directory,)

    def sources(self) -> tuple[str, ...]:
        return (*self._sources, *self._locked.leave())

    def undo(self) -> None:
        """Do nothing: the file is in one of two places, and its journal decides what follows."""


class Removal(DurableMove):
    """The operator deletes a message."""

    def __init__(self, locked: LockedMessage) -> None:
        super().__init__(locked, Move.REMOVE)

    def begin_sync(self) -> None:
        """Do nothing: the content of the file no longer matters."""

    def sync(self) -> None:
        """Do nothing: the content of the file no longer matters."""

    def move(self) -> None:
        self._sources += self._locked.leave()
        self._locked.move(Move.REMOVE)

    def directories(self) -> tuple[str, ...]:
        return self._sources

    def sources(self) -> tuple[str, ...]:
        return ()


class Unmoved:
    """A change that moves nothing. By itself it does nothing at all."""

    def begin_sync(self) -> None:
        """Do nothing: so few syncs gain nothing by an early start of the write-back."""

    def sync(self) -> None:
        """Do nothing: nothing was written."""

    def move(self) -> None:
        """Do nothing: the file does not move."""

    def directories(self) -> tuple[str, ...]:
        return ()

    def sources(self) -> tuple[str, ...]:
        return ()

    def undo(self) -> None:
        """Do nothing: what was written remains, and the next reader of the journal sees it."""


class Written(Unmoved):
    """A message stays where it is, and its journal is made durable."""

    def __init__(self, locked: LockedMessage) -> None:
        self._locked = locked

    def begin_sync(self) -> None:
        self._locked.begin_sync()

    def sync(self) -> None:
        self._locked.sync()


class Settled(Written):
    """A message stays where it is, durably, and its other names are removed."""

    def directories(self) -> tuple[str, ...]:
        return (self._locked.spot.directory,)

    def sources(self) -> tuple[str, ...]:
        return self._locked.leave()


_CUR = Place.CUR
_OF_CLAIMED = (Place.CUR.value, Place.NEW.value)


def left_behind(spot: Spot) -> tuple[str, ...]:
    """Return the directories that may still hold a file after a power cut if it leaves this spot now."""
    if spot.place is _CUR:
        return _OF_CLAIMED
    return (spot.directory,)


def make_durable(spool: Spool, change: Change) -> None:
    """Make one change durable now, in this thread.

    Raises:
        OSError: a step failed, and the change was undone.
        NotUndone: a step failed, and the change could not be undone.
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


def make_all_durable(spool: Spool, changes: Sequence[Change]) -> list[OSError | None]:
    """Make many changes durable with few syncs; return the error of each, or None."""
    if len(changes) <= FEW:
        return [_trouble(partial(make_durable, spool, change)) for change in changes]
    from mailer.spool.committer import Committer  # noqa: PLC0415 - asyncio, for one message in many

    committer = Committer(spool).start()
    try:
        return [_trouble(future.result) for future in [committer.commit(change) for change in changes]]
    finally:
        committer.close()


def _trouble(step: Callable[[], None]) -> OSError | None:
    try:
        step()
    except OSError as error:
        return error
    return None
