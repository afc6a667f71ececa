"""Checks that there is room for more mail: on the spool's filesystem, and below the cap of the queue."""

import asyncio
import os
from collections.abc import Callable

from mailer.spool.layout import MIN_FREE_INODES, Place, Spool

_LOOK_EVERY = 0.1
"""Seconds."""
_MIN_PAUSE = 1.0
"""Seconds between two counts of the queue, at least."""
_SHARE = 50
"""A count that took a second is repeated after this many: at most 2 % of a processor."""


_MEBIBYTE = 2**20


def _mebibytes(octets: int) -> str:
    return f"{octets // _MEBIBYTE} MiB"


class Space:
    """Asks the filesystem ten times a second at most, and counts the queue now and then."""

    def __init__(self, spool: Spool, *, min_free: int, max_queued: int, now: Callable[[], float]) -> None:
        """Look at nothing yet.

        Args:
            spool: open.
            min_free: octets on the spool's filesystem that new mail must leave.
            max_queued: messages waiting, above which no more are taken; 0: no cap.
            now: monotonic seconds.
        """
        self._spool = spool
        self._min_free = min_free
        self._max_queued = max_queued
        self._now = now
        self._free = 0
        self._inodes_lack = False
        self._next_look = float("-inf")
        self._counted = 0
        self._since = 0
        self._next_count = float("-inf")
        self._counting: asyncio.Future[None] | None = None

    def lacks_room(self, size: int) -> bool:
        """Tell whether a message of so many octets (0: not known) would leave too little free."""
        if self._now() >= self._next_look:
            state = os.fstatvfs(self._spool.root)
            self._free = state.f_bavail * state.f_frsize
            # Filesystems that make inodes as needed (btrfs) say that they have none at all.
            self._inodes_lack = state.f_files > 0 and state.f_favail < MIN_FREE_INODES
            self._next_look = self._now() + _LOOK_EVERY
        return self._inodes_lack or self._free - size < self._min_free

    def shortage(self, size: int) -> str:
        """As `lacks_room`, in words: what there is, and what is wanted; empty: there is room."""
        if not self.lacks_room(size):
            return ""
        if self._inodes_lack:
            return f"fewer than {MIN_FREE_INODES} inodes are free"
        message = f" beside {_mebibytes(size)} of message" if size >= _MEBIBYTE else ""
        return f"{_mebibytes(self._free)} free, {_mebibytes(self._min_free)} wanted{message} (minFreeSpace)"

    @property
    def uncounted(self) -> bool:
        """There is a cap, and the queue was never counted: wait for `count` before `queue_is_full`."""
        return self._max_queued > 0 and self._next_count == float("-inf")

    async def count(self) -> None:
        """Wait for a count of the queue; one serves all who wait."""
        if self._counting is None:
            self._counting = asyncio.ensure_future(self._count())
        await asyncio.shield(self._counting)

    def queue_is_full(self) -> bool:
        """Tell whether `max_queued` messages wait; up to date as of the last count plus what came since."""
        if not self._max_queued:
            return False
        if self._counting is None and self._now() >= self._next_count:
            self._counting = asyncio.ensure_future(self._count())
        return self._counted + self._since >= self._max_queued

    def accepted(self) -> None:
        """One more message is queued."""
        self._since += 1

    async def _count(self) -> None:
        began, before = self._now(), self._since
        try:
            self._counted = await asyncio.to_thread(self._queued)
            self._since -= before
        finally:
            took = self._now() - began
            self._next_count = self._now() + max(_MIN_PAUSE, took * _SHARE)
            self._counting = None

    def _queued(self) -> int:
        root = self._spool.path
        count = sum(1 for place in (Place.NEW, Place.CUR) for _ in os.scandir(root / place))
        for bucket in os.scandir(root / Place.RETRY):
            try:
                count += sum(1 for _ in os.scandir(bucket.path))
            except (FileNotFoundError, NotADirectoryError):
                continue  # swept away meanwhile
        return count
