"""Two clients of one filesystem, so that what one does can be compared with what the other sees.

`Client` acts in this process. `SecondProcess` is another process, which does the same on request: in the same
directory, or in the same directory of a second mount, which is what another host would have. Every act takes
and returns plain values, and works relative to a directory's descriptor.
"""

import errno
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Protocol

from mailer.spool.flock import lock
from mailer.spool.syscalls import rename_exclusive, rename_without_replacing

_MODE = 0o600
_PATIENCE = 20.0
"""Seconds after which the second process's answer is given up: an act takes milliseconds, also over a
network."""
_PAUSE = 0.02
_LONGEST = 1 << 20
_START = (
    "import sys; sys.path[:] = sys.argv[2:]; from mailer.spool.checks.client import serve; serve(sys.argv[1])"
)
"""What the second process runs: with our module path, and so without that of its working directory."""

Do = Callable[..., Any]


class Acts:
    """What a client can do in the directory. Each raises OSError."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._open: dict[str, int] = {}

    def create(self, name: str, text: str = "") -> bool:
        """Create a file exclusively, and write to it; return False if its name exists already."""
        try:
            fd = self._new(name)
        except FileExistsError:
            return False
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        return True

    def create_all(self, prefix: str, count: int) -> list[int]:
        """Create files numbered from 0; return the numbers of those that did not exist."""
        return [number for number in range(count) if self.create(f"{prefix}{number}")]

    def rename_one(self, old: str, new: str) -> bool:
        """Rename without replacing; return False if the new name exists."""
        try:
            rename_without_replacing(self._directory, old, new)
        except FileExistsError:
            return False
        return True

    def move(self, old: str, new: str) -> None:
        """Rename as the spool does, also where RENAME_NOREPLACE is missing."""
        rename_exclusive(self._directory, old, new)

    def rename_all(self, old: str, new: str, count: int) -> list[int]:
        """Rename files numbered from 0; return the numbers of those whose new name did not exist."""
        return [number for number in range(count) if self.rename_one(f"{old}{number}", f"{new}{number}")]

    def append(self, name: str, line: str, count: int) -> None:
        """Append a line a number of times, each with one write."""
        fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            for _ in range(count):
                os.write(fd, line.encode())
        finally:
            os.close(fd)

    def begin_appending(self, name: str) -> None:
        """Open a file to append to, and leave it open."""
        self._open[name] = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, dir_fd=self._directory)

    def append_one(self, name: str, line: str) -> None:
        """Append a line to a file that was left open, as programs do to the ledger."""
        os.write(self._open[name], line.encode())

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._directory)

    def look(self, name: str) -> list[Any] | None:
        """Return a file's inode number, links, size and text; None if there is no such name."""
        try:
            state = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        try:
            return [state.st_ino, state.st_nlink, state.st_size, os.read(fd, _LONGEST).decode()]
        finally:
            os.close(fd)

    def names(self) -> list[str]:
        # btrfs lists the names as they were when the directory was opened, so open it for each listing.
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(fd)

    def keep(self, name: str) -> None:
        """Open a file, and leave it open."""
        self._open[name] = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._directory)

    def kept(self, name: str) -> list[Any]:
        """Return the size, links and text of a file that was left open."""
        state = os.fstat(self._open[name])
        return [state.st_size, state.st_nlink, os.pread(self._open[name], _LONGEST, 0).decode()]

    def lock(self, name: str) -> bool:
        """Open a file and lock it exclusively, without waiting; return False if another client holds it."""
        fd = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._directory)
        if not lock(fd):
            os.close(fd)
            return False
        self._open[name] = fd
        return True

    def close(self, name: str) -> None:
        """Close a file that was locked or left open."""
        os.close(self._open.pop(name))

    def _new(self, name: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, _MODE, dir_fd=self._directory)

    def end(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


class Client(Protocol):
    """A client of the filesystem: `do` waits for an act's result, `begin` and `result` do so in two steps."""

    def do(self, act: str, *arguments: object) -> Any: ...  # noqa: ANN401 - what the act returns
    def begin(self, act: str, *arguments: object) -> None: ...
    def result(self) -> Any: ...  # noqa: ANN401
    def kill(self) -> None:
        """End the client without notice, as a crash does."""


class Here:
    """A client in this process."""

    def __init__(self, directory: int) -> None:
        self._acts = Acts(directory)
        self._result: Any = None

    def do(self, act: str, *arguments: object) -> Any:  # noqa: ANN401
        return getattr(self._acts, act)(*arguments)

    def begin(self, act: str, *arguments: object) -> None:
        self._result = self.do(act, *arguments)

    def result(self) -> Any:  # noqa: ANN401
        return self._result

    def kill(self) -> None:
        self._acts.end()


class SecondProcess:
    """A client in a process of its own, which ends with the object's `kill`, or with us."""

    def __init__(self, directory: int) -> None:
        """Start it.

        Args:
            directory: the directory's descriptor, which stays the caller's.

        Raises:
            OSError: it cannot be started, as where root's Python is not readable for the spool's owner.
        """
        argv = [sys.executable, "-I", "-c", _START, str(directory), *sys.path]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[directory],
            bufsize=0,
        )
        self._begun = 0
        self._read = b""
        try:
            self.do("names")
        except BaseException:
            self.kill()
            raise

    def do(self, act: str, *arguments: object) -> Any:  # noqa: ANN401
        self.begin(act, *arguments)
        return self.result()

    def begin(self, act: str, *arguments: object) -> None:
        assert self._process.stdin
        self._begun += 1
        self._process.stdin.write(json.dumps([self._begun, act, *arguments]).encode() + b"\n")

    def result(self) -> Any:  # noqa: ANN401
        """Return the result of what was begun last; raises OSError, also its own and TimeoutError."""
        deadline = monotonic() + _PATIENCE
        number, code, result = json.loads(self._line(deadline))
        # An earlier answer comes first if a trial failed before it asked for it.
        while number != self._begun:
            number, code, result = json.loads(self._line(deadline))
        if code:
            raise OSError(code, os.strerror(code))
        return result

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout
        answered = select.poll()  # select(2) takes no descriptor beyond 1023.
        answered.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._read:
            left = deadline - monotonic()
            if left <= 0 or not answered.poll(left * 1000):
                raise TimeoutError(errno.ETIMEDOUT, f"no answer within {_PATIENCE:.0f} s")
            if not (more := self._process.stdout.read(_LONGEST)):
                raise ChildProcessError(errno.ECHILD, "the second process ended")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line

    def kill(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(OSError):
                pipe.close()
        # Do not wait for a process that cannot be ended, in a call to a server that does not answer.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)


def serve(directory: str) -> None:
    """Run as the second process: perform the acts that arrive on standard input, one JSON list a line."""
    acts = Acts(int(directory))
    for line in sys.stdin:
        number, act, *arguments = json.loads(line)
        try:
            answer = [number, 0, getattr(acts, act)(*arguments)]
        except OSError as error:
            answer = [number, error.errno, None]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def eventually(condition: Callable[[], bool], patience: float) -> bool:
    """Wait until a condition holds; return whether it did within that many seconds."""
    deadline = monotonic() + patience
    while not condition():
        if monotonic() >= deadline:
            return False
        sleep(_PAUSE)
    return True
