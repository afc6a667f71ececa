"""Closing files that have no name any more, aside from whoever has better to do.

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
"""Files on their way, at most; beyond that whoever removes more waits for his own."""


class Disposal:
    """Closes descriptors in threads of its own, which begin with the first one."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[list[int] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._gathered: list[int] = []
        self._waiting = 0
        self._closed: deque[int] = deque()
        """How many each thread has closed, until that is subtracted."""

    def close(self, fd: int) -> None:
        """Close a descriptor soon; those of one turn of the running event loop go together."""
        while self._closed:
            self._waiting -= self._closed.popleft()
        if self._waiting >= _MOST:
            os.close(fd)
            return
        self._waiting += 1
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._gathered.append(fd)

    def _hand_over(self) -> None:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name="disposal", daemon=True) for _ in range(_THREADS)
            ]
            for thread in self._threads:
                thread.start()
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._jobs.put(gathered)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            for fd in job:
                os.close(fd)
            self._closed.append(len(job))

    def finish(self) -> None:
        """Close what is left, and end the threads; call it when nothing more comes."""
        self._hand_over()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
