"""The programs that stay: each keeps `state/program-PID-NAMESPACE` locked for as long as it runs.

`mailer reload` finds by it which processes to signal, and reads what became of that. A file whose lock is
free is of a program that died; the first to find it removes it.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from mailer.mail.lazy_pattern import compile_late
from mailer.spool.layout import FILE_MODE, STATE, Spool

_NAME = compile_late(r"program-\d{1,10}-\d{1,20}", re.ASCII)
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST = 64 * 1024


class Program(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One program that runs, and how it last read its configuration."""

    name: str
    """What the operator calls it."""
    pid: int
    namespace: int
    """The inode of its pid namespace: in another one its number means somebody else."""
    config: str
    """The file."""
    reads: int = 1
    """How often it has read its configuration, whatever came of it."""
    trouble: str = ""
    """Why it did not take what it read last, and goes on with the one before; empty: it did."""
    restart: tuple[str, ...] = ()
    """Keys that have changed and count only after a restart."""

    @property
    def reachable(self) -> bool:
        """Tell whether a signal to `pid` reaches it."""
        return self.namespace == _namespace()


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


class Registration:
    """This program's own entry. What cannot be written costs nothing but that `mailer reload` misses us."""

    def __init__(self, spool: Spool, name: str, config: str) -> None:
        """Enter it."""
        self._spool = spool
        self._told = Program(name=name, pid=os.getpid(), namespace=_namespace(), config=config)
        self._file = f"program-{self._told.pid}-{self._told.namespace}"
        self._fd = -1
        with contextlib.suppress(OSError), spool.directory(STATE) as directory:
            self._fd = os.open(self._file, _FLAGS | os.O_CREAT, FILE_MODE, dir_fd=directory)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write()

    def read_again(self, *, trouble: str = "", restart: tuple[str, ...] = ()) -> None:
        """Say what became of another reading of the configuration."""
        reads = self._told.reads + 1
        self._told = msgspec.structs.replace(self._told, reads=reads, trouble=trouble, restart=restart)
        self._write()

    def _write(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                data = msgspec.json.encode(self._told) + b"\n"
                os.pwrite(self._fd, data, 0)
                os.ftruncate(self._fd, len(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError), self._spool.directory(STATE) as directory:
                os.unlink(self._file, dir_fd=directory)
            os.close(self._fd)
            self._fd = -1


def running(spool: Spool) -> list[Program]:
    """Return the programs that run, in the order of their names; raises OSError."""
    with spool.directory(STATE) as directory:
        with os.scandir(directory) as entries:
            known = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
        found = [program for name in known for program in _living(directory, name)]
    return sorted(found, key=lambda program: (program.name, program.pid))


def _living(directory: int, name: str) -> Iterator[Program]:
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except OSError:
        return
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
            return
        # A program that is writing at this moment is read at the next look.
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            yield msgspec.json.decode(os.pread(fd, _LONGEST, 0), type=Program)
    finally:
        os.close(fd)
