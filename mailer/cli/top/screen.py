"""The terminal while something is shown on all of it: left as it was found, however that ends."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Self

from mailer.cli.top.frame import PLAIN, QUIET, TITLE, Row, Size

# xterm's alternate screen; no cursor; what is too long for a line does not go on in the next.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_LOOKS = {PLAIN: "", TITLE: "1", QUIET: "2", "ok": "32", "degraded": "33", "failing": "31"}
_Attributes = list[int | list[bytes | int]]
"""As `termios` has them."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal ends the program. No `except Exception` on the way may stop it."""


class Screen:
    """A terminal, from `__enter__` to `__exit__`; signals that end the program raise `Ended` meanwhile."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._out = sys.stdout
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: _Attributes | None = None
        self._woken, self._waker = os.pipe()

    def size(self) -> Size:
        columns, rows = os.get_terminal_size(self._out.fileno())
        return Size(max(1, columns), max(1, rows))

    def draw(self, rows: Iterable[Row]) -> None:
        """Show these rows and nothing else."""
        lines = (f"{self._looking(row)}{_REST_OF_LINE}" for row in rows)
        self._out.write(_HOME + "\n".join(lines) + _BELOW)
        self._out.flush()

    def wait(self, seconds: float) -> str:
        """Wait for a key, or for another size; return the key, if there was one; EOF is `q`."""
        watched = [self._woken] if self._keys is None else [self._woken, self._keys]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._woken in ready:
            os.read(self._woken, 512)
        if self._keys is None or self._keys not in ready:
            return ""
        try:
            return os.read(self._keys, 64).decode(errors="replace") or "q"
        except OSError:
            return "q"  # The terminal is gone.

    def _looking(self, row: Row) -> str:
        look = _LOOKS.get(row.style, "") if self._colour else ""
        return f"\x1b[{look}m{row.text}\x1b[0m" if look else row.text

    def _enter(self) -> None:
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        self._out.write(_ENTER)
        self._out.flush()

    def _leave(self) -> None:
        try:
            self._out.write(_LEAVE)
            self._out.flush()
        except OSError:
            return  # Nobody is there any more.
        if self._keys is not None and self._before is not None:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)

    def _pause(self, number: int, _: FrameType | None) -> None:
        """Give the terminal back while stopped (Ctrl-Z)."""
        self._leave()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._pause)
        self._enter()

    def __enter__(self) -> Self:
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        for number in _ENDING:
            signal.signal(number, _end)
        signal.signal(signal.SIGTSTP, self._pause)
        try:
            self._enter()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (*_ENDING, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)  # A second Ctrl-C must not keep the first from cleaning up.
        self._leave()
        signal.set_wakeup_fd(-1)
        for end in (self._woken, self._waker):
            os.close(end)


def _end(*_: object) -> None:
    raise Ended
