"""Closes removed files in the background: the last close frees their blocks, which takes time.

The last close of a removed file is when the filesystem frees its blocks, and that may wait for the disk: ext4
without a journal, mounted with `discard`, tells the device at once (measured: 60 us, and 2 ms on a busy
disk). An event loop that closes them itself delivers nothing meanwhile.
"""

import asyncio
import os
import threading
from collections import deque
from queue import SimpleQueue

_THREADS = 4
"""The waits are the device's, which takes several at a time."""
_MOST = 128
"""Files in the background, at most; beyond that the caller closes its own."""
_TOGETHER = 32
"""Files that are handed over at once: each time a thread must be woken."""
_SOON = 0.1
"""Seconds that one waits for others."""


class BackgroundClose:
    """Closes descriptors in threads of its own, which begin with the first one."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[list[int] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._gathered: list[int] = []
        self._timed = False
        """They are handed over within `_SOON`, however few they are."""
        self._waiting = 0
        self._closed: deque[int] = deque()
        """How many each thread has closed, until that is subtracted."""

    def close(self, fd: int) -> None:
        """Close a descriptor soon, together with others; an event loop must be running."""
        while self._closed:
            self._waiting -= self._closed.popleft()
        if self._waiting >= _MOST:
            os.close(fd)
            return
        self._waiting += 1
        self._gathered.append(fd)
        if len(self._gathered) >= _TOGETHER:
            self._hand_over()
        elif not self._timed:
            self._timed = True
            asyncio.get_running_loop().call_later(_SOON, self._time_is_up)

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

    def finish(self) -> None:
        """Close what is left, and end the threads; call it when nothing more comes."""
        self._hand_over()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()


def _runs(fds: list[int]) -> list[tuple[int, int]]:
    """Give the first and last of those that follow each other, as those of messages in a row mostly do.

    A thread that closes them one by one fights the event loop for the interpreter each time.
    """
    runs: list[tuple[int, int]] = []
    for fd in sorted(fds):
        if runs and fd == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], fd
        else:
            runs.append((fd, fd))
    return runs
