"""The active messages of a run, and how many places of `sending.concurrency` they take.

A message that only waits, for an unresponsive server or for `batchDelay` to pass, takes no place: the limit
bounds the messages that are worked on, and waiting costs next to nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from mailer.ground.lazy_task import LazyTask
from mailer.send.destination_queues import DestinationQueues

_MAX_WAITING = 200
"""The most messages that may wait without taking a place. Each has a file and a connection open, and a
process has 1,024 descriptors by default."""


class ActiveMessages:
    """The deliveries of a run, one for each message."""

    def __init__(self, queues: DestinationQueues, changed: Callable[[], None]) -> None:
        """Prepare.

        Args:
            queues: the destinations of the messages, and what waits for them.
            changed: called when more places may be free than before.
        """
        self._queues = queues
        self._changed = changed
        self._works: dict[LazyTask, tuple[str, float]] = {}
        """The destination of each, and when it began, on the monotonic clock."""
        self._emptied: asyncio.Future[None] | None = None
        """Done when no message is active; None unless something waits for that."""
        self._waiting = 0
        self._ticking = False
        self._pausing: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._works)

    @property
    def places(self) -> int:
        """The number of places that are in use."""
        if not self._waiting and not self._pausing:
            return len(self._works)
        # The maximum, not the sum: a message that pauses may be counted among the waiting ones too.
        return len(self._works) - max(self._waiting, min(len(self._pausing), _MAX_WAITING))

    @property
    def longest(self) -> float:
        """Seconds since the oldest active message was started; there must be one."""
        _, since = next(iter(self._works.values()))
        return monotonic() - since

    def start(self, work: Coroutine[Any, Any, None], destination: str) -> None:
        """Start the work on a message.

        Args:
            work: the delivery; it never raises, and calls `end` as the last.
            destination: what `DestinationQueues.destination_of` returned for the message.
        """
        task = LazyTask(work)
        self._works[task] = destination, monotonic()
        self._queues.begin(destination)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(self._queues.look_every, self._tick)
        task.start()

    def end(self, task: LazyTask) -> list[str]:
        """Note that a message's work is done; return the names of messages that waited for this one."""
        destination, _ = self._works.pop(task)
        self._waiting = min(self._waiting, len(self._works))
        if self._emptied and not self._works:
            self._emptied.set_result(None)
            self._emptied = None
        return self._queues.end(destination)

    async def empty(self, seconds: float | None = None) -> None:
        """Wait until no message is active, or until the seconds are over."""
        if self._works:
            self._emptied = self._emptied or asyncio.get_running_loop().create_future()
            await asyncio.wait([self._emptied], timeout=seconds)

    async def pause(self, name: str, seconds: float) -> None:
        """Sleep between two batches of a message, and give its place to others meanwhile."""
        self._pausing[name] += 1  # A counter: a message may pause at several destinations at the same time.
        self._changed()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._pausing -= Counter({name: 1})

    def _tick(self) -> None:
        """Count the messages that only wait; repeats while any message is active."""
        loop = asyncio.get_running_loop()
        now = monotonic()
        waits = [self._queues.waits(destination, now - since) for destination, since in self._works.values()]
        self._waiting = min(sum(waits), _MAX_WAITING)
        self._ticking = bool(self._works)
        if self._ticking:
            loop.call_later(self._queues.look_every, self._tick)
        self._changed()
