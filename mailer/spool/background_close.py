"""Close unlinked files on background threads, because the last close frees their blocks, which takes time.

The filesystem frees the blocks of an unlinked file when its last descriptor is closed, and that may wait for
the disk: ext4 without a journal, mounted with `discard`, informs the device immediately (measured: 60 us, and
2 ms on a busy disk). An event loop that closes such files itself delivers nothing meanwhile.
"""

import asyncio
import os
import threading
from collections import deque
from queue import SimpleQueue

_THREADS = 4
"""Several, because each close waits for the device, and devices serve parallel requests."""
_MAX_PENDING = 128
"""The most descriptors queued at once; beyond that, `close` closes in the caller."""
_BATCH = 32
"""Descriptors per wake-up of a thread."""
_FLUSH_DELAY = 0.1
"""Seconds a descriptor may wait for others to share its thread wake-up."""


class BackgroundClose:
    """Closes descriptors on threads, which are started when there are descriptors to close."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[list[int] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._gathered: list[int] = []
        self._timed = False
        """Whether a timer will hand the gathered descriptors over within `_FLUSH_DELAY`, however few."""
        self._waiting = 0
        self._closed: deque[int] = deque()
        """Counts of descriptors closed by the threads and not yet subtracted from `_waiting`."""

    def close(self, fd: int) -> None:
        """Close a descriptor soon, in a batch with others; an event loop must be running."""
        while self._closed:
            self._waiting -= self._closed.popleft()
        if self._waiting >= _MAX_PENDING:
            os.close(fd)
            return
        self._waiting += 1
        self._gathered.append(fd)
        if len(self._gathered) >= _BATCH:
            self._hand_over()
        elif not self._timed:
            self._timed = True
            asyncio.get_running_loop().call_later(_FLUSH_DELAY, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timed = False
        self._hand_over()

    def _hand_over(self) -> None:
        if not self._gathered:
            return
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name="closer", daemon=True) for _ in range(_THREADS)
            ]
            for thread in self._threads:
                thread.start()
        gathered, self._gathered = self._gathered, []
        self._jobs.put(gathered)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            for first, last in _runs(job):
                os.closerange(first, last + 1)
            self._closed.append(len(job))

    def close_all(self) -> None:
        """Close the remaining descriptors and end the threads; call it after the last `close`."""
        self._hand_over()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()


def _runs(fds: list[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of consecutive descriptors; those of one batch mostly are.

    A thread that closes them one by one competes with the event loop for the interpreter lock each time.
    """
    runs: list[tuple[int, int]] = []
    for fd in sorted(fds):
        if runs and fd == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], fd
        else:
            runs.append((fd, fd))
    return runs
