"""The active messages of a run, and how many places of `sending.concurrency` they take.

A message that only waits, for an unresponsive server or for `batchDelay` to pass, takes no place: the limit
bounds the messages that are worked on, and waiting costs next to nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from mailer.send.destination_queues import DestinationQueues

_TICK = 0.1
"""Seconds between counts of the messages that only wait."""
_MAX_WAITING = 200
"""The most messages that may wait without taking a place. Each has a file and a connection open, and a
process has 1,024 descriptors by default."""


class ActiveMessages:
    """The tasks of a run, one for each message."""

    def __init__(self, queues: DestinationQueues, changed: Callable[[], None]) -> None:
        """Prepare.

        Args:
            queues: the destinations of the messages, and what waits for them.
            changed: called when more places may be free than before.
        """
        self._queues = queues
        self._changed = changed
        self.tasks: dict[asyncio.Task[None], tuple[str, float]] = {}
        """The destination of each task, and when it began, on the monotonic clock."""
        self._waiting = 0
        self._ticking = False
        self._pausing: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self.tasks)

    @property
    def places(self) -> int:
        """The number of places that are taken."""
        # The maximum, not the sum: a message that pauses may be counted among the waiting ones too.
        return len(self.tasks) - max(self._waiting, min(len(self._pausing), _MAX_WAITING))

    @property
    def longest(self) -> float:
        """Seconds since the oldest active message was started; there must be one."""
        _, since = next(iter(self.tasks.values()))
        return monotonic() - since

    def start(self, work: Coroutine[Any, Any, None], destination: str) -> None:
        """Start the work on a message.

        Args:
            work: the delivery; it never raises, and calls `end` as the last.
            destination: what `DestinationQueues.destination_of` returned for the message.
        """
        loop = asyncio.get_running_loop()
        self.tasks[loop.create_task(work)] = destination, monotonic()
        self._queues.begin(destination)
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK, self._tick)

    def end(self, task: asyncio.Task[None]) -> list[str]:
        """Note that a message's work is done; return the names of messages that waited for this one."""
        destination, _ = self.tasks.pop(task)
        self._waiting = min(self._waiting, len(self.tasks))
        return self._queues.end(destination)

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
        waits = [self._queues.waits(destination, now - since) for destination, since in self.tasks.values()]
        self._waiting = min(sum(waits), _MAX_WAITING)
        self._ticking = bool(self.tasks)
        if self._ticking:
            loop.call_later(_TICK, self._tick)
        self._changed()
