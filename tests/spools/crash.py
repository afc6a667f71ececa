"""Death between two system calls, without a process to kill.

Every call with which the spool changes the disk is counted at the boundary to the operating system (`os`,
and libc as `mailer.spool.syscalls` calls it); before the n-th one the program dies: that call and all later
ones raise. Descriptors are closed afterwards, as the kernel closes a dead process's, which frees the locks;
no code of ours gets to undo anything.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mailer.spool import syscalls
from mailer.spool.changes import Change, make_durable
from mailer.spool.committer import Committer

_OS_CALLS = ("open", "write", "pwrite", "fsync", "fdatasync", "rename", "link", "unlink", "mkdir", "rmdir")
_LIBC_CALLS = ("renameat2", "fallocate")


class Crash(BaseException):
    """The program is dead; nothing may catch it and go on."""


class Boundary:
    """Counts the calls, and dies at one of them."""

    def __init__(self, die_at: int | None, *, torn: bool) -> None:
        self.calls: list[str] = []
        self.dead = False
        self.thread: int | None = None
        """The only thread whose calls count, and that dies; None: the whole process."""
        self._die_at = die_at
        self._torn = torn
        self._open: set[int] = set()

    def around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            if self.thread not in {None, threading.get_ident()}:
                return real(*args, **keywords)
            if self.dead:
                raise Crash(name)
            if len(self.calls) == self._die_at:
                self.dead = True
                if self._torn and name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise Crash(name)
            self.calls.append(name)
            result = real(*args, **keywords)
            if name == "open":
                self._open.add(result)
            return result

        return call

    def closing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def close(fd: int) -> None:
            self._open.discard(fd)
            real(fd)

        return close

    def bury(self) -> None:
        for fd in self._open:
            os.close(fd)


@contextmanager
def dying_at(die_at: int | None, *, torn: bool = False) -> Iterator[Boundary]:
    """Run the block until its n-th system call (0 is the first; None: to its end); swallow the death.

    With `torn` a write that is died at has written its first half.
    """
    boundary = Boundary(die_at, torn=torn)
    real_os = {name: getattr(os, name) for name in (*_OS_CALLS, "close")}
    real_libc = {name: getattr(syscalls._libc, name) for name in _LIBC_CALLS}
    for name in _OS_CALLS:
        setattr(os, name, boundary.around(name, real_os[name]))
    setattr(os, "close", boundary.closing(real_os["close"]))  # noqa: B010 - mypy knows os.close too well
    for name in _LIBC_CALLS:
        setattr(syscalls._libc, name, boundary.around(name, real_libc[name]))
    try:
        yield boundary
    except Crash:
        assert boundary.dead
    finally:
        for name, real in real_os.items():
            setattr(os, name, real)
        for name, real in real_libc.items():
            setattr(syscalls._libc, name, real)
        if boundary.dead:
            boundary.bury()


class InPlace(Committer):
    """Makes changes durable in the caller's thread, so that a death can be at any of the calls."""

    def commit_and_call(
        self,
        change: Change,
        answer: Callable[[Exception | None], None],
        then: Callable[[], None] | None = None,
    ) -> None:
        try:
            make_durable(self._spool, change)
        except OSError as error:
            answer(error)
        else:
            if then is not None:
                then()
            answer(None)
