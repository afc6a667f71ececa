"""Long-running programs: each keeps `state/program-PID-NAMESPACE` locked for as long as it runs.

`mailer reload` uses the files to find the processes to signal, and reads the results there. A file whose lock
is free belongs to a dead program; the first program that finds it removes it.
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
from mailer.spool.directory import Spool
from mailer.spool.layout import FILE_MODE, STATE

RECEIVER = "mailer serve"
"""The name of the program that accepts mail."""
_NAME = compile_late(r"program-\d{1,10}-\d{1,20}", re.ASCII)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST = 64 * 1024


class Program(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A running program, and how it last read its configuration."""

    name: str
    """The program's name as operators know it."""
    pid: int
    namespace: int
    """The inode of its pid namespace; in another namespace its pid belongs to another process."""
    config: str
    """The path of the configuration file."""
    reads: int = 1
    """How often it has read its configuration, with or without success."""
    trouble: str = ""
    """Why it rejected the configuration it read last, and keeps the one before; empty if it did not."""
    restart: tuple[str, ...] = ()
    """Changed keys that take effect only after a restart."""

    @property
    def reachable(self) -> bool:
        """Whether a signal to `pid` reaches it."""
        return self.namespace == _namespace()


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


class Registration:
    """This program's own entry. If it cannot be written, `mailer reload` does not find this program."""

    def __init__(self, spool: Spool, name: str, config: str) -> None:
        """Create the entry."""
        self._spool = spool
        self._told = Program(name=name, pid=os.getpid(), namespace=_namespace(), config=config)
        self._file = f"program-{self._told.pid}-{self._told.namespace}"
        self._fd = -1
        # Under its own name the file is locked and complete, or `running` would take it for a dead program's.
        draft = f".{self._file}"
        with contextlib.suppress(OSError), spool.directory(STATE) as directory:
            self._fd = os.open(draft, _MAKE, FILE_MODE, dir_fd=directory)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write()
            os.rename(draft, self._file, src_dir_fd=directory, dst_dir_fd=directory)

    def read_again(self, *, trouble: str = "", restart: tuple[str, ...] = ()) -> None:
        """Record the result of reading the configuration again."""
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
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


def running(spool: Spool) -> list[Program]:
    """Return the running programs, sorted by name; raises OSError."""
    with spool.directory(STATE) as directory:
        with os.scandir(directory) as entries:
            known = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
        found = [program for name in known for program in _living(directory, name)]
    return sorted(found, key=lambda program: (program.name, program.pid))


def _living(directory: int, name: str) -> Iterator[Program]:
    try:
        # Not for writing, so that programs are found on a filesystem that has turned read-only.
        fd = os.open(name, _READ, dir_fd=directory)
    except OSError:
        return
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # It has ended since, another one has looked, or read-only.
                os.unlink(name, dir_fd=directory)
            return
        # An entry that is being written just now does not parse; the next call reads it.
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            yield msgspec.json.decode(os.pread(fd, _LONGEST, 0), type=Program)
    finally:
        os.close(fd)
