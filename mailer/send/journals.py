"""Group fsync for the journals of messages that stay active for long.

When a message is sent to all its recipients, its file is removed, so syncing the journal would be wasted. But
a message with many recipients, or with one whose server does not respond, stays active for minutes. A power
cut must then not lose the lines that say who has received it, or that the final dot was sent: the recipients
would get it again, perhaps from another server. So a few times a second all journals with such lines are
synced together.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from mailer.spool.changes import Unmoved
from mailer.spool.committer import Committer
from mailer.spool.layout import Place
from mailer.spool.locked_message import LockedMessage

_SYNC_DELAY = 0.25
"""Seconds until a new line is synced. The promise is that it is durable within one second, and the sync takes
part of that."""


class Journals:
    """Syncs journals that have lines which are not durable yet; for use in one event loop."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._changed: dict[LockedMessage, None] = {}
        self._taken: dict[LockedMessage, None] = {}
        self._timed = False
        """Whether a sync is scheduled within `_SYNC_DELAY`."""

    def taken(self, locked: LockedMessage) -> None:
        """Schedule the removal of a claimed message's other names, once its name in `cur/` is durable.

        Messages have other names on filesystems where a power cut may tear a rename (`spool/renaming.py`).
        They are removed so that a message is seen in one place only.
        """
        if locked.also:
            if not self._timed:
                self._begin()
            self._taken[locked] = None

    def leaving(self, locked: LockedMessage) -> None:
        """Stop tracking the names of a message: it is about to be moved, and the mover removes them."""
        self._taken.pop(locked, None)

    def changed(self, locked: LockedMessage) -> None:
        """Schedule the sync of a journal, unless its message is moved (and synced) or removed before."""
        if not self._timed:
            self._begin()
        self._changed[locked] = None

    def _begin(self) -> None:
        self._timed = True
        asyncio.get_running_loop().call_later(_SYNC_DELAY, self._sync)

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
                # No descriptor is free; try again, since some will be as deliveries end.
                self.changed(locked)
                continue
            syncing = self._committer.commit_in_loop(change)
            # A failure is kept in `LockedMessage.lost`, so the message cannot be settled any more.
            syncing.add_done_callback(lambda future: future.cancelled() or future.exception())

    def _settle(self, taken: Sequence[LockedMessage], syncing: asyncio.Future[None]) -> None:
        """Remove the other names of the messages that are still active."""
        durable = not syncing.cancelled() and syncing.exception() is None
        for locked in taken:
            if locked in self._taken:
                del self._taken[locked]
                if durable:
                    # On failure, the names are removed when the message is moved.
                    with suppress(OSError):
                        locked.leave()


class _Claimed(Unmoved):
    """Syncs `cur/`, which makes claims durable. If it fails, the messages keep their other names."""

    def directories(self) -> tuple[str, ...]:
        return (Place.CUR.value,)


class _Sync(Unmoved):
    """Syncs a journal. Lines whose sync fails are still in the file, where the next runner reads them."""

    def __init__(self, locked: LockedMessage) -> None:
        self._locked = locked
        # A duplicate, because the message may be released before the sync ends, and its descriptor number
        # reused for another file.
        self._fd = os.dup(locked.fd)

    def sync(self) -> None:
        try:
            # After a failed sync, a second one would wrongly succeed.
            if self._locked.lost is None:
                os.fdatasync(self._fd)
        except OSError as error:
            self._locked.lost = error
            raise
        finally:
            # Closed here and not in the event loop: the lock is released when the last descriptor closes.
            os.close(self._fd)
