"""What a run has in hand, and how many places that takes.

A message that only waits, for a silent server or for `batchDelay` to pass, takes none:
`sending.concurrency` bounds the messages that are worked on, and waiting is not work.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from mailer.send.destination_queues import DestinationQueues

_TICK = 0.1
"""Seconds between looks at who only waits."""
_MOST_WAITING = 200
"""Messages that may wait without taking a place: each has a file and a connection open, and a process has
1,024 descriptors at first."""


class ActiveMessages:
    """The tasks of a run, one for each message."""

    def __init__(self, queues: DestinationQueues, changed: Callable[[], None]) -> None:
        """Prepare.

        Args:
            queues: where the messages go, and what must wait for them.
            changed: called when there may be more room than before.
        """
        self._queues = queues
        self._changed = changed
        self.tasks: dict[asyncio.Task[None], tuple[str, float]] = {}
        """With the destination of each, and since when."""
        self._waiting = 0
        self._ticking = False
        self._pausing: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self.tasks)

    @property
    def places(self) -> int:
        """How many places are taken."""
        # One that pauses may be counted among those who wait.
        return len(self.tasks) - max(self._waiting, min(len(self._pausing), _MOST_WAITING))

    @property
    def longest(self) -> float:
        """Seconds that the one that has been in hand for longest has been so; there must be one."""
        _, since = next(iter(self.tasks.values()))
        return monotonic() - since

    def take(
        self, work: Coroutine[Any, Any, None], destination: str, done: Callable[[list[str]], None]
    ) -> None:
        """Start the work on a message.

        Args:
            work: never raises.
            destination: as `DestinationQueues.destination_of` has it.
            done: called at its end with the names of messages that waited for it.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        self.tasks[task] = destination, monotonic()
        self._queues.begin(destination)
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK, self._tick)

        def end(task: asyncio.Task[None]) -> None:
            del self.tasks[task]
            self._waiting = min(self._waiting, len(self.tasks))
            done(self._queues.end(destination))

        task.add_done_callback(end)

    async def pause(self, name: str, seconds: float) -> None:
        """Sleep, on behalf of a message that has batches left, and give its place to others meanwhile."""
        self._pausing[name] += 1  # It may do so at several destinations at once.
        self._changed()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._pausing -= Counter({name: 1})

    def _tick(self) -> None:
        """Count anew who only waits, while anything is in hand."""
        loop = asyncio.get_running_loop()
        now = monotonic()
        waits = [self._queues.waits(destination, now - since) for destination, since in self.tasks.values()]
        self._waiting = min(sum(waits), _MOST_WAITING)
        self._ticking = bool(self.tasks)
        if self._ticking:
            loop.call_later(_TICK, self._tick)
        self._changed()
