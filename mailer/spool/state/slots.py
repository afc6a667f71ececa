"""Limit the connections that all runners together have to one provider: a lock for each, `state/session-*`.

The lock on one of the N files is the right to one connection; the kernel frees it when its process dies. The
file holds the process id while it is in use. A free lock on a file that holds one was left by a connection
that was not closed in order, so that the server may not know yet that it is closed.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from hashlib import sha256

from mailer.spool.directory import Spool
from mailer.spool.layout import FILE_MODE, STATE

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Slot:
    """The right to one connection, until `release`."""

    def __init__(self, fd: int, *, abandoned: bool) -> None:
        self._fd = fd
        self.abandoned = abandoned
        """Whether the previous connection of this slot was not closed in order."""

    def release(self, *, in_order: bool) -> None:
        """Give up the slot; args: in_order: the server knows that the connection is closed."""
        if self._fd >= 0:
            if in_order:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


class Slots:
    """The slots of one provider."""

    def __init__(self, spool: Spool, of: str, most: int) -> None:
        """Prepare; args: of: the provider's account; most: how many connections are allowed."""
        self._spool = spool
        self._name = f"session-{sha256(of.encode()).hexdigest()[:16]}"
        self._of = of
        self._most = most

    def __str__(self) -> str:
        return f"{self._most} connections that maxSessions allows to {self._of}"

    def users(self) -> list[str]:
        """Return the ids of the processes that hold slots, as far as they are known."""
        return sorted(filter(None, {self._user(number) for number in range(self._most)}))

    def _user(self, number: int) -> str:
        with contextlib.suppress(OSError), self._spool.directory(STATE) as directory:
            fd = os.open(f"{self._name}-{number}", _FLAGS & ~os.O_CREAT, dir_fd=directory)
            with os.fdopen(fd, "rb") as file:
                return file.readline(20).decode("ascii", "replace").strip()
        return ""

    def acquire(self) -> Slot | None:
        """Take a free slot; None if there is none; raises OSError."""
        with self._spool.directory(STATE) as directory:
            for number in range(self._most):
                fd = os.open(f"{self._name}-{number}", _FLAGS, FILE_MODE, dir_fd=directory)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)
                    continue
                except BaseException:
                    os.close(fd)
                    raise
                abandoned = os.fstat(fd).st_size > 0
                with contextlib.suppress(OSError):  # The disk is full; the lock alone is enough.
                    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return Slot(fd, abandoned=abandoned)
        return None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Signal to other runners, while the block runs, that a slot is wanted."""
        fd = self._open_wanted()
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield
        finally:
            os.close(fd)

    def wanted(self) -> bool:
        """Return whether another runner waits for a slot; raises OSError."""
        fd = self._open_wanted()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _open_wanted(self) -> int:
        with self._spool.directory(STATE) as directory:
            return os.open(f"{self._name}-wanted", _FLAGS, FILE_MODE, dir_fd=directory)
