"""Making durable what is recorded of messages that stay in hand.

A message that is sent to everybody is removed, and its journal with it: syncing that would be in vain. But
one with many recipients, or with one whose server does not answer, stays in hand for minutes. A power cut
then must not take the record of those who have it already, nor that of a dot that was sent: they would get it
again, perhaps from another server. So some times a second the journals with such lines are synced, all
together.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from mailer.spool.committer import Committer
from mailer.spool.layout import Place
from mailer.spool.locked import LockedMessage

_SOON = 0.25
"""Seconds until a line is handed to the disk: promised to be durable within one, of which the sync wants its
share."""


class Journals:
    """The journals with lines that are not durable yet; used in one event loop."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._changed: dict[LockedMessage, None] = {}
        self._taken: dict[LockedMessage, None] = {}
        self._timed = False
        """They are looked at within `_SOON`."""

    def taken(self, locked: LockedMessage) -> None:
        """Have a message lose its other names, once that in `cur/` is durable: soon, together with others.

        Where a rename may be torn, each message that was claimed has some; it is to be seen in one place.
        """
        if locked.also:
            if not self._timed:
                self._begin()
            self._taken[locked] = None

    def leaving(self, locked: LockedMessage) -> None:
        """A message is about to be moved: its names are the mover's from here on."""
        self._taken.pop(locked, None)

    def changed(self, locked: LockedMessage) -> None:
        """Have a journal synced soon, unless its message has moved on by then (with a sync, or for good)."""
        if not self._timed:
            self._begin()
        self._changed[locked] = None

    def _begin(self) -> None:
        self._timed = True
        asyncio.get_running_loop().call_later(_SOON, self._sync)

    def _sync(self) -> None:
        self._timed = False
        if self._taken:
            syncing = self._committer.commit_in_loop(_Claimed())
            syncing.add_done_callback(partial(self._settle, tuple(self._taken)))
        changed, self._changed = self._changed, {}
        for locked in changed:
            if locked.fd < 0:
                continue
            try:
                change = _Sync(locked)
            except OSError:
                # No descriptor is left: there will be some as deliveries end.
                self.changed(locked)
                continue
            syncing = self._committer.commit_in_loop(change)
            # A failure stays with the message: it cannot be settled any more (`Held.sync`).
            syncing.add_done_callback(lambda future: future.cancelled() or future.exception())

    def _settle(self, taken: Sequence[LockedMessage], syncing: asyncio.Future[None]) -> None:
        """Remove the other names of the messages that are still in hand."""
        durable = not syncing.cancelled() and syncing.exception() is None
        for locked in taken:
            if locked in self._taken:
                del self._taken[locked]
                if durable:
                    # What is left is removed when the message moves on.
                    with suppress(OSError):
                        locked.leave()


class _Claimed:
    """A `Change` that moves nothing: that claims are durable is the point."""

    def begin_sync(self) -> None:
        """A claim writes nothing."""

    def sync(self) -> None:
        """A claim writes nothing."""

    def move(self) -> None:
        """Nothing moves."""

    def directories(self) -> tuple[str, ...]:
        return (Place.CUR.value,)

    def sources(self) -> tuple[str, ...]:
        return ()

    def undo(self) -> None:
        """The messages keep their other names."""


class _Sync:
    """A `Change` that moves nothing."""

    def __init__(self, locked: LockedMessage) -> None:
        self._locked = locked
        # Of its own: the message may be released before the disk is done, and its descriptor be another
        # file's.
        self._fd = os.dup(locked.fd)

    def begin_sync(self) -> None:
        """It is one sync in half a second; nothing is gained."""

    def sync(self) -> None:
        try:
            # After a failure a second one would say that all is well.
            if self._locked.lost is None:
                os.fdatasync(self._fd)
        except OSError as error:
            self._locked.lost = error
            raise
        finally:
            # Here and not in the loop: the lock is free when the last descriptor is closed.
            os.close(self._fd)

    def move(self) -> None:
        """Nothing moves."""

    def directories(self) -> tuple[str, ...]:
        return ()

    def sources(self) -> tuple[str, ...]:
        return ()

    def undo(self) -> None:
        """What was not synced is still in the file; the next runner reads it there."""
