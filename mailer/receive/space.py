"""Checks whether there is room for more mail: on the spool's filesystem, and in the queue (`maxQueued`).

It also notices that the spool was replaced while we run, for instance unmounted: no runner would see what
is accepted then. A disk that cannot tell refuses no mail here: the write that follows fails, and its error is
the reply.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from errno import ESTALE

from mailer.spool.directory import Spool
from mailer.spool.free_space import MIN_INODES, FreeSpace
from mailer.spool.layout import Place

_LOOK_EVERY = 0.1
"""Seconds between two looks at the filesystem, at least."""
_MIN_PAUSE = 1.0
"""Seconds between two counts of the queue, at least."""
_PAUSE_FACTOR = 50
"""The pause after a count, as a multiple of its duration: counting takes at most 2 % of a processor."""


_MEBIBYTE = 2**20


def _mebibytes(octets: int) -> str:
    return f"{octets // _MEBIBYTE} MiB"


class Space:
    """The space for new mail. It asks the filesystem at most ten times a second, and counts the queue."""

    def __init__(self, spool: Spool, *, min_free: int, max_queued: int, now: Callable[[], float]) -> None:
        """Prepare; checks nothing yet.

        Args:
            spool: an open spool.
            min_free: octets that new mail must leave free on the spool's filesystem.
            max_queued: the number of queued messages at which new mail is refused; 0: no limit.
            now: monotonic seconds.
        """
        self._spool = spool
        self._min_free = min_free
        self._max_queued = max_queued
        self._now = now
        self._free = FreeSpace(None, None)
        self._replaced = False
        self._next_look = float("-inf")
        self._counted = 0
        self._since = 0
        self._next_count = float("-inf")
        self._counting: asyncio.Future[None] | None = None

    @property
    def replaced(self) -> bool:
        """Whether the spool's path leads to another directory, or to none."""
        self._look()
        return self._replaced

    def _look(self) -> None:
        if self._now() < self._next_look:
            return
        self._free = FreeSpace(None, None)
        with suppress(OSError):
            self._free = self._spool.free_space()
        try:
            self._spool.check_place()
        except OSError as error:
            self._replaced = error.errno == ESTALE
        else:
            self._replaced = False
        self._next_look = self._now() + _LOOK_EVERY

    def lacks_room(self, size: int) -> bool:
        """Return whether a message of `size` octets (0: not known) would leave too little space."""
        self._look()
        return self._free.lacks_inodes or self._free.is_under(self._min_free + size)

    def shortage(self, size: int) -> str:
        """Return what `lacks_room` found in words, with what is free and what is required; empty: enough."""
        if not self.lacks_room(size):
            return ""
        if self._free.lacks_inodes:
            return f"fewer than {MIN_INODES} inodes are free"
        message = f" beside {_mebibytes(size)} of message" if size >= _MEBIBYTE else ""
        free = _mebibytes(self._free.octets or 0)
        return f"{free} free, {_mebibytes(self._min_free)} wanted{message} (minFreeSpace)"

    @property
    def uncounted(self) -> bool:
        """Whether `count` must be awaited before `queue_is_full`: there is a limit, and no count yet."""
        return self._max_queued > 0 and self._next_count == float("-inf")

    async def count(self) -> None:
        """Count the queue; concurrent calls share one count."""
        if self._counting is None:
            self._counting = asyncio.ensure_future(self._count())
        await asyncio.shield(self._counting)

    def queue_is_full(self) -> bool:
        """Return whether `max_queued` messages are queued, by the last count plus those accepted since."""
        if not self._max_queued:
            return False
        if self._counting is None and self._now() >= self._next_count:
            self._counting = asyncio.ensure_future(self._count())
        return self._counted + self._since >= self._max_queued

    def accepted(self) -> None:
        """Note that one more message is queued."""
        self._since += 1

    async def _count(self) -> None:
        began, before = self._now(), self._since
        try:
            with suppress(OSError):
                self._counted = await asyncio.to_thread(self._queued)
                self._since -= before
        finally:
            took = self._now() - began
            self._next_count = self._now() + max(_MIN_PAUSE, took * _PAUSE_FACTOR)
            self._counting = None

    def _queued(self) -> int:
        root = self._spool.path
        count = sum(1 for place in (Place.NEW, Place.CUR) for _ in os.scandir(root / place))
        for bucket in os.scandir(root / Place.RETRY):
            try:
                count += sum(1 for _ in os.scandir(bucket.path))
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed meanwhile
        return count
