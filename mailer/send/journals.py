"""Making durable what is recorded of messages that stay in hand.

A message that is sent to everybody is removed, and its journal with it: syncing that would be in vain. But
one with many recipients, or with one whose server does not answer, stays in hand for minutes. A power cut
then must not take the record of those who have it already, nor that of a dot that was sent: they would get it
again, perhaps from another server. So some times a second the journals with such lines are synced, all
together.
"""

import asyncio
import os

from mailer.spool.committer import Committer
from mailer.spool.held import Held
from mailer.spool.layout import Place

_SOON = 0.25
"""Seconds until a line is handed to the disk: promised to be durable within one, of which the sync wants its
share."""


class Journals:
    """The journals with lines that are not durable yet; used in one event loop."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._changed: dict[Held, None] = {}
        self._taken: dict[Held, None] = {}

    def taken(self, held: Held) -> None:
        """Where a power cut may leave half of a rename, have that of a claim synced soon."""
        if not held.spool.renames_are_whole:
            self._begin()
            self._taken[held] = None

    def changed(self, held: Held) -> None:
        """Have a journal synced soon, unless its message has moved on by then (with a sync, or for good)."""
        self._begin()
        self._changed[held] = None

    def _begin(self) -> None:
        if not self._changed and not self._taken:
            asyncio.get_running_loop().call_later(_SOON, self._sync)

    def _sync(self) -> None:
        taken, self._taken = self._taken, {}
        if any(held.fd >= 0 for held in taken):
            self._committer.sync_soon(Place.CUR)
        changed, self._changed = self._changed, {}
        for held in changed:
            if held.fd >= 0:
                syncing = self._committer.commit_in_loop(_Sync(held))
                # A failure stays with the message: it cannot be settled any more (`Held.sync`).
                syncing.add_done_callback(lambda future: future.cancelled() or future.exception())


class _Sync:
    """A `Change` that moves nothing."""

    def __init__(self, held: Held) -> None:
        self._held = held
        # Of its own: the message may be released before the disk is done, and its descriptor be another
        # file's.
        self._fd = os.dup(held.fd)

    def begin_sync(self) -> None:
        """It is one sync in half a second; nothing is gained."""

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._held.lost = error
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
