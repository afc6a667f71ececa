"""The end of every process that the tests have started: a later run may measure times on this machine.

Each pytest process, an xdist worker or their controller, is the subreaper of what it starts: a process whose
parent has ended becomes a child of the pytest process, not of process 1. So all descendants are found,
whatever their session, group and environment. The controller ends those of a worker that was killed.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

import pytest

from testbed import proc

_PR_SET_CHILD_SUBREAPER = 36
_GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL. xdist's controller kills a worker that needs more than 10 for its end."""
_PATIENCE = 60.0
_LOOK_EVERY = 0.01


class Descendants:
    """A plug-in of pytest that ends what tests and fixtures have not ended, and names it."""

    def __init__(self) -> None:
        """Adopt orphans from now on. What this process has started before it ran pytest is not the tests'."""
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        self._others = frozenset(_children(os.getpid()))
        self._left: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End them, after the fixtures' own ends and, in the controller, after the workers'."""
        forked = sys.modules.get("testbed.forked")
        helpers: Callable[[], AbstractSet[int]] = forked.helpers if forked else frozenset
        self._left += end(lambda: [pid for pid in _below(os.getpid(), self._others) if pid not in helpers()])
        if forked:
            forked.end_helpers()
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left"] = self._left

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take over what a worker has named; one that was killed has named nothing."""
        self._left += getattr(node, "workeroutput", {}).get("left", ())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what tests have left, for who mends them."""
        if self._left:
            terminalreporter.section("Processes that tests left, and that were ended now", red=True)
            for line in self._left:
                terminalreporter.line(line)


def end(running: Callable[[], list[int]]) -> list[str]:
    """End all processes that `running` finds, and what they start meanwhile; return a line about each.

    SIGTERM comes first, and SIGKILL after `_GRACE` seconds, or at once to a process that ignores SIGTERM.

    Raises:
        AssertionError: SIGKILL did not end one of them.
    """
    began = time.monotonic()
    found: dict[int, str] = {}
    while pids := [pid for pid in running() if not _reaped(pid)]:
        late = time.monotonic() - began
        assert late < _PATIENCE, f"cannot end {[found.get(pid, pid) for pid in pids]}"
        for pid in pids:
            if pid not in found:
                found[pid] = _described(pid)
                _send(pid, signal.SIGTERM)
                _send(pid, signal.SIGCONT)  # A stopped process does not hear SIGTERM.
            if late > _GRACE or _ignores_sigterm(pid):
                _send(pid, signal.SIGKILL)
        time.sleep(_LOOK_EVERY)
    return list(found.values())


def _children(pid: int) -> Iterator[int]:
    """Yield the children of all threads of a process; nothing once it has ended."""
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                yield from map(int, (thread / "children").read_text().split())


def _below(pid: int, others: AbstractSet[int]) -> Iterator[int]:
    for child in _children(pid):
        if child not in others:
            yield child
            yield from _below(child, others)


def _reaped(pid: int) -> bool:
    """Reap a child that has ended; tell whether the process has ended."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    return proc.gone(pid)


def _described(pid: int) -> str:
    """Return its command line, its directory and, if known, the test that started it."""
    with suppress(OSError):
        here = Path(f"/proc/{pid}")
        argv, environ = ((here / name).read_text(errors="replace") for name in ("cmdline", "environ"))
        tests = [name for name in environ.split("\0") if name.startswith("PYTEST_CURRENT_TEST=")]
        return " ".join(
            [argv.replace("\0", " ").strip(), "in", ascii(str((here / "cwd").readlink())), *tests]
        )
    return f"process {pid}, which was ending"


def _ignores_sigterm(pid: int) -> bool:
    with suppress(OSError):
        _, _, ignored = Path(f"/proc/{pid}/status").read_text().partition("SigIgn:")
        return bool(int(ignored.split()[0], 16) >> signal.SIGTERM - 1 & 1)
    return False


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
