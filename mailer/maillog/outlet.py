"""Standard error of a program that serves others: writing there never waits.

A pipe that nobody reads is full after 64 KiB, a terminal stops at Ctrl-S, and a plain write waits until it is
read on: an event loop would stand still between a message's commit and its 250. What cannot be written is
counted, and the count is written once standard error takes something again.

O_NONBLOCK is a flag of the open file description, which the shell and all programs that inherited it share.
Setting it on descriptor 2 would change it for them; so each kind of file has a way of its own:

| standard error is | it is written by |
| --- | --- |
| a pipe, a terminal or another device | write(2) to an open file description of our own, with O_NONBLOCK |
| a socket, such as that of systemd's journal | send(2) with MSG_DONTWAIT |
| a regular file | write(2): a disk that is full says so at once |
| what we may not open, being another user's | a thread that may wait, for a bounded number of lines |
"""

import contextlib
import io
import os
import select
import signal
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

_UNREAD = "nobody read standard error for a while"
_PAUSE = 0.1
"""Seconds between two attempts at a file that poll(2) calls writable and that takes nothing."""
_LAST_WAIT = 1.0
"""Seconds that a program which ends waits for the last lines to be taken."""
_ASIDE = 64 * 1024
"""Octets that wait for the thread, where there is one: as many as a pipe holds."""
_STDERR = 2
_PIECE = 4096
"""Characters of several lines that are written at once: about what a pipe takes whole or not at all."""

Put = Callable[[bytes], int]
"""Writes; returns how many octets were taken; raises OSError: BlockingIOError where it would have to wait."""


def install() -> "Outlet":
    """Replace `sys.stderr` by one that never waits, for all of this process: our lines, warnings, tracebacks.

    To be called early: what root may open, the user that it becomes may not.
    """
    outlet = installed()
    if outlet is None:
        outlet = Outlet(_STDERR)
        sys.stderr = outlet
    return outlet


def installed() -> "Outlet | None":
    """Return what `install` made, if this program called it."""
    stream: object = sys.stderr
    return stream if isinstance(stream, Outlet) else None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Write the lines of a block at its end, at once, in a program that has called `install`."""
    outlet = installed()
    if outlet is None:
        yield
    else:
        with outlet.together():
            yield


def finish() -> None:
    """Before the program ends: give the last lines, and the count of those that are missing, a second."""
    if outlet := installed():
        outlet.finish(_LAST_WAIT)


def missing(count: int, reason: str) -> str:
    """Say that lines are missing, and where they are."""
    lines = "1 line was" if count == 1 else f"{count} lines were"
    return f"{lines} not written here: {reason}; the ledger has all events"


class Outlet(io.TextIOBase):
    """A text stream of whole lines. Any thread may write, finalizers included; nothing is raised."""

    def __init__(self, fd: int) -> None:
        """Find out how to write to a descriptor, which stays the caller's."""
        self.note: Callable[[int, str], str] = missing
        """Words the line about missing ones: its arguments are their number and why."""
        self._stderr = fd
        self._fd, self._put = _way(fd)
        # A finalizer may write while its thread does: it leaves its text in the queue for the outer call.
        self._lock = threading.RLock()
        self._busy = False
        self._gathering = False
        self._queue: deque[str] = deque()
        self._begun = ""
        """A line without its end."""
        self._rest = b""
        """Of a line that was taken in part: nothing else may be written before it."""
        self._lost = 0
        self._reason = ""
        self._waiting: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a variable; the base class a property
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # the same
        return "backslashreplace"

    def fileno(self) -> int:
        return self._stderr

    def isatty(self) -> bool:
        return os.isatty(self._stderr)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        """Write the lines that the text completes, or count them."""
        self._queue.append(text)
        if not self._gathering:
            self._work()
        return len(text)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            self._work()

    def finish(self, patience: float) -> None:
        """Write what is owed, the begun line included; wait for that at most `patience` seconds."""
        deadline = time.monotonic() + patience
        if self._begun:
            self.write("\n")
        while self._owes and (left := deadline - time.monotonic()) > 0:
            _await_room(self._fd, left)
            self._work()
            if self._owes:
                time.sleep(min(_PAUSE, left))
        aside = getattr(self._put, "__self__", None)
        if isinstance(aside, _Aside):
            aside.drain(max(0.0, deadline - time.monotonic()))

    @property
    def _owes(self) -> bool:
        return bool(self._rest or self._lost)

    def _work(self) -> None:
        with self._lock:
            if self._busy:
                return
            self._busy = True
            try:
                if self._rest or self._lost:
                    self._catch_up()
                while self._queue:
                    text = self._queue.popleft()
                    while self._queue and len(text) + len(self._queue[0]) <= _PIECE:
                        text += self._queue.popleft()
                    self._take(text)
            finally:
                self._busy = False
            if (self._rest or self._lost) and self._reason == _UNREAD and self._waiting is None:
                self._begin_waiting()

    def _take(self, text: str) -> None:
        lines, end, begun = (self._begun + text).rpartition("\n")
        self._begun = begun
        if not end:
            return
        data = (lines + end).encode("utf-8", "backslashreplace")
        if self._rest or self._lost or not self._written(data):
            self._lost += data.count(b"\n")

    def _catch_up(self) -> None:
        """Write the end of the line that was cut, then the count."""
        if rest := self._rest:
            self._rest = b""
            if not self._written(rest):
                self._rest = rest
        if self._lost and not self._rest:
            note = f"{self.note(self._lost, self._reason)}\n"
            if self._written(note.encode("utf-8", "backslashreplace")):
                self._lost = 0

    def _written(self, data: bytes) -> bool:
        """Write, and keep what was not taken; False when nothing was."""
        try:
            count = self._put(data)
        except BlockingIOError:
            self._reason = _UNREAD
            return False
        except OSError as error:
            self._reason = error.strerror or str(error)
            return False
        self._rest = data[count:]
        if self._rest:
            self._reason = _UNREAD
        return True

    def _begin_waiting(self) -> None:
        """Have one thread wait for room, so that the count is written even if nothing more is said."""
        self._waiting = _start(self._wait)

    def _wait(self) -> None:
        while True:
            _await_room(self._fd)
            self._work()
            with self._lock:
                if not self._owes or self._reason != _UNREAD:
                    self._waiting = None
                    return
            time.sleep(_PAUSE)


def _way(fd: int) -> tuple[int, Put]:
    """Return how to write to a file without waiting, and the descriptor to poll for room."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd, partial(os.write, fd)
    if stat.S_ISSOCK(mode):
        return _by_socket(fd)
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            own = os.open(f"/proc/self/fd/{fd}", flags)
            return own, partial(os.write, own)
    return fd, _Aside(fd).put


def _by_socket(fd: int) -> tuple[int, Put]:
    import socket  # noqa: PLC0415 - rarely one

    own = socket.socket(fileno=os.dup(fd))
    return own.fileno(), lambda data: own.send(data, socket.MSG_DONTWAIT)


class _Aside:
    """A thread that writes for us, and may wait."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._thread: threading.Thread | None = None

    def put(self, data: bytes) -> int:
        """Leave it to the thread; raises BlockingIOError while too much is waiting."""
        with self._changed:
            self._thread = self._thread or _start(self._write)
            if self._thread is None or (self._size and self._size + len(data) > _ASIDE):
                raise BlockingIOError
            self._lines.append(data)
            self._size += len(data)
            self._changed.notify_all()
        return len(data)

    def drain(self, patience: float) -> None:
        """Wait until all is written, at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._size, patience)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                left = self._lines.popleft()
            size = len(left)
            with contextlib.suppress(OSError):
                while left:
                    left = left[os.write(self._fd, left) :]
            with self._changed:
                self._size -= size
                self._changed.notify_all()


def _await_room(fd: int, patience: float | None = None) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(None if patience is None else patience * 1000)


def _start(work: Callable[[], None]) -> threading.Thread | None:
    """Start a thread that gets no signal and keeps no program alive; None when the system has none."""
    thread = threading.Thread(target=work, name="stderr", daemon=True)
    # It inherits the mask: a signal that it got would not end a sigwait(3) in another thread.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    except RuntimeError:
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread
