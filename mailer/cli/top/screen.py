"""Full-screen terminal output, which restores the terminal however the program ends."""

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

# Enter xterm's alternate screen, hide the cursor, and switch off line wrapping; and the reverse.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_STYLES = {PLAIN: "", TITLE: "1", QUIET: "2", "ok": "32", "degraded": "33", "failing": "31"}
_Attributes = list[int | list[bytes | int]]
"""Terminal attributes, as returned by `termios.tcgetattr`."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """Raised when a signal ends the program. A BaseException, so that no `except Exception` catches it."""


class Screen:
    """The terminal as a context manager; within it, signals that end the program raise `Ended`."""

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
        """Replace the contents of the screen by these rows."""
        lines = (f"{self._styled(row)}{_REST_OF_LINE}" for row in rows)
        self._out.write(_HOME + "\n".join(lines) + _BELOW)
        self._out.flush()

    def wait(self, seconds: float) -> str:
        """Wait for a key or a change of size; return the key, `q` at EOF, or an empty string."""
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

    def _styled(self, row: Row) -> str:
        look = _STYLES.get(row.style, "") if self._colour else ""
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
            return  # The terminal is gone.
        if self._keys is not None and self._before is not None:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)

    def _pause(self, number: int, _: FrameType | None) -> None:
        """Restore the terminal while the program is stopped (Ctrl-Z)."""
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
            signal.signal(number, signal.SIG_IGN)  # A second Ctrl-C must not interrupt the clean-up.
        self._leave()
        signal.set_wakeup_fd(-1)
        for end in (self._woken, self._waker):
            os.close(end)


def _end(*_: object) -> None:
    raise Ended
