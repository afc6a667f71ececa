"""A program at a terminal of its own, with somebody at the keys."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.tools import program
from testbed.waiting import until

INTERRUPT = "\x03"
"""Ctrl-C: the kernel makes it a SIGINT for the foreground process group."""
_ROWS, _COLUMNS = 60, 132


class Terminal:
    """One running program, which leads its session and is in the foreground of its controlling terminal."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """Start it at once.

        Args:
            argv: the program and its arguments.
            env: added to our environment.
            cwd: where it runs.
        """
        self._written = b""
        self._open = True
        self._keyboard, terminal = pty.openpty()
        os.set_blocking(self._keyboard, False)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        try:
            # setsid(1) becomes the program, so that the process id is the program's.
            self._process = subprocess.Popen(
                [program("setsid"), "--ctty", *argv],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                env=os.environ | {"TERM": "vt100"} | env,
                cwd=cwd,
            )
        finally:
            os.close(terminal)

    @property
    def pid(self) -> int:
        return self._process.pid

    def press(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def screen(self) -> str:
        """All that was written to the terminal so far, with the sequences that place it."""
        try:
            while self._open and (shown := os.read(self._keyboard, 65536)):
                self._written += shown
        except OSError:  # nothing more for now (EAGAIN), or ever (EIO: nobody has it open any longer)
            pass
        return self._written.decode(errors="replace")

    def await_text(self, *texts: str) -> None:
        """Return when all of them have been written.

        Raises:
            AssertionError: they were not; it says what was.
        """
        try:
            until(lambda: all(text in self.screen() for text in texts), f"{texts} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.screen()}") from error

    def await_end(self) -> int:
        """Return its exit status once it has ended, negative if a signal ended it."""
        # Read all the while: a full terminal stops whoever writes to it.
        until(lambda: (self.screen() or True) and self._process.poll() is not None, "the program to end")
        assert self._process.returncode is not None
        return self._process.returncode

    def close(self) -> None:
        """Close the window: the kernel sends SIGHUP to the session's leader and its foreground programs."""
        os.close(self._keyboard)
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        if self._open:
            self.close()
