"""Standard error of a long-running program: writing to it never blocks.

A pipe that nobody reads is full after 64 KiB, a terminal stops at Ctrl-S, and a plain write then blocks until
it is read: an event loop would stop between a message's commit and its 250. Lines that cannot be written are
counted, and the count is written once standard error accepts data again.

O_NONBLOCK is a flag of the open file description, which the shell and all programs that inherited it share.
Setting it on descriptor 2 would change it for them, so each kind of file is written in a different way:

| standard error is | it is written by |
| --- | --- |
| a pipe, a terminal or another device | write(2) to our own open file description, with O_NONBLOCK |
| a socket, such as that of systemd's journal | send(2) with MSG_DONTWAIT |
| a regular file | write(2), which fails immediately if the disk is full |
| a file of another user that we may not open | a thread that may block, for a bounded number of lines |
"""

import contextlib
import io
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

_UNREAD = "standard error was not read for a while"
_PAUSE = 0.1
"""Seconds between two attempts at a file that poll(2) reports as writable but that accepts nothing."""
_LAST_WAIT = 1.0
"""Seconds that a program waits at its end for the last lines to be accepted."""
_MAX_QUEUED = 64 * 1024
"""Octets that may wait for the thread, if there is one: the capacity of a pipe."""
_STDERR = 2
_PIECE = 4096
"""Characters of several lines that are written with one call: about what a pipe takes whole or not at all."""

Put = Callable[[bytes], int]
"""Writes, and returns how many octets were accepted; raises OSError, or BlockingIOError to avoid blocking."""


def install() -> "Outlet":
    """Replace `sys.stderr` by a stream that never blocks, for all lines, warnings and tracebacks.

    Call it early: the user that the program switches to may not be able to open what root can.
    """
    outlet = installed()
    if outlet is None:
        outlet = Outlet(_STDERR)
        sys.stderr = outlet
    return outlet


def installed() -> "Outlet | None":
    """Return the result of `install`, if this program called it."""
    stream: object = sys.stderr
    return stream if isinstance(stream, Outlet) else None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Write the lines of a block when it ends, with one call, in a program that has called `install`."""
    outlet = installed()
    if outlet is None:
        yield
    else:
        with outlet.together():
            yield


def flush() -> None:
    """Before the program ends, write the last lines and the count of missing ones; wait at most a second."""
    if outlet := installed():
        outlet.close_within(_LAST_WAIT)


def missing(count: int, reason: str) -> str:
    """Format the line about missing lines, with where they can be found."""
    lines = "1 line was" if count == 1 else f"{count} lines were"
    return f"{lines} not written here: {reason}; the ledger has all events"


class Outlet(io.TextIOBase):
    """A text stream of whole lines. Any thread may write, finalizers included; nothing is raised."""

    def __init__(self, fd: int) -> None:
        """Choose how to write to a descriptor, which remains the caller's."""
        self.note: Callable[[int, str], str] = missing
        """Formats the line about missing lines; the arguments are their number and the reason."""
        self._stderr = fd
        self._fd, self._put = _way(fd)
        # A finalizer may write while its thread does; it queues its text for the outer call.
        self._lock = threading.RLock()
        self._busy = False
        self._gathering = False
        self._queue: deque[str] = deque()
        self._begun = ""
        """The beginning of a line whose end was not written yet."""
        self._rest = b""
        """The rest of a line that was accepted in part; nothing else may be written before it."""
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
        """Write the lines that the text completes, or count them as missing."""
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

    def close_within(self, patience: float) -> None:
        """Write what is pending, an unfinished line included; wait at most `patience` seconds for that."""
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
        """Write the rest of a cut line, then the count of missing lines."""
        if rest := self._rest:
            self._rest = b""
            if not self._written(rest):
                self._rest = rest
        if self._lost and not self._rest:
            note = f"{self.note(self._lost, self._reason)}\n"
            if self._written(note.encode("utf-8", "backslashreplace")):
                self._lost = 0

    def _written(self, data: bytes) -> bool:
        """Write, and keep what was not accepted; return False if nothing was."""
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
        """Start a thread that waits for room, so that the count is written even without further output."""
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
    """Return a descriptor to poll for room, and a function that writes to the file without blocking."""
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
    """A thread that writes for us, and may block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._thread: threading.Thread | None = None

    def put(self, data: bytes) -> int:
        """Queue data for the thread; raises BlockingIOError while too much is queued."""
        with self._changed:
            self._thread = self._thread or _start(self._write)
            if self._thread is None or (self._size and self._size + len(data) > _MAX_QUEUED):
                raise BlockingIOError
            self._lines.append(data)
            self._size += len(data)
            self._changed.notify_all()
        return len(data)

    def drain(self, patience: float) -> None:
        """Wait until all is written, at most `patience` seconds."""
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
    """Start a daemon thread that gets no signals; return None if the system refuses a thread."""
    import signal  # noqa: PLC0415 - its tables take 1 ms to build, and threads are rare here

    thread = threading.Thread(target=work, name="stderr", daemon=True)
    # The thread inherits the mask: a signal delivered to it would not end a sigwait(3) in another thread.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    except RuntimeError:
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread
