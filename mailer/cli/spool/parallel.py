"""A long listing is made by several processes, each of its share of the messages; a short one by one.

Nearly all its time goes into opening, reading and describing one message after the other. (*Measured: 100,000
messages in 0.7 s by two processors, in 1.25 s by one.*)
"""

import contextlib
import fcntl
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from mailer.cli.parent import end_with
from mailer.spool.layout import Place, Spool
from mailer.spool.scan import spots
from mailer.spool.view.inspect import Mine, everything

Lines = Callable[[Mine], Iterator[str]]
"""Makes the lines of the messages in a share."""

_LONG = 5_000
"""Messages from which other processes pay: to start one takes as long as to list some hundred."""
_MOST = 4
"""Processes; each reads all names."""
_PIPE = 1 << 20
"""Octets that a process may be ahead of us, where the kernel allows so many."""
_DEFECT = 255
"""The exit code that says so; the others are numbers of the system's errors."""


def processes_for(spool: Spool, places: Iterable[Place]) -> int:
    """Say how many processes are to list these places: at most one for each processor we may use."""
    is_long = any(True for _ in islice(spots(spool, places), _LONG, None))
    return min(len(os.sched_getaffinity(0)), _MOST) if is_long else 1


def listed(lines: Lines, processes: int, *, eager: bool = False) -> Iterator[str]:
    """Stream all lines, in no particular order.

    Args:
        lines: as above.
        processes: how many shall make them.
        eager: pass each line on as soon as it is made; for lines that are few and far between.

    Raises:
        OSError: as `lines`, or ChildProcessError: a process was ended before its work was done.
        RuntimeError: a process had a defect, and has reported it on standard error.
    """
    workers = _start_all(lines, processes, eager=eager) if processes > 1 else {}
    if not workers:
        yield from lines(everything)
        return
    try:
        yield from _merged(list(workers))
        while workers:
            fd, pid = workers.popitem()
            os.close(fd)
            _raise_for(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        _end(workers)


def _start_all(lines: Lines, processes: int, *, eager: bool) -> dict[int, int]:
    """Start all processes; return their pipes and ids, or nothing if the system allows no more."""
    sys.stdout.flush()  # What is in its buffer is to be written once.
    # Whoever started us may have had it ignored; then there would be no exit codes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    workers: dict[int, int] = {}
    try:
        for number in range(processes):
            fd, pid = _start(lines, partial(_is_in_share, number, processes), eager=eager)
            workers[fd] = pid
    except OSError:
        _end(workers)
        return {}
    return workers


def _is_in_share(number: int, of: int, name: str) -> bool:
    return ord(name[-1]) % of == number


def _start(lines: Lines, mine: Mine, *, eager: bool) -> tuple[int, int]:
    reading, writing = os.pipe()
    parent = os.getpid()
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _PIPE)
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if pid == 0:
        code = _DEFECT
        try:
            os.close(reading)
            code = _write(lines(mine), writing, parent, eager=eager)
        finally:
            os._exit(code)  # Without what the program does at its end: that is done once.
    os.close(writing)
    return reading, pid


def _write(lines: Iterator[str], fd: int, parent: int, *, eager: bool) -> int:
    """Write lines into a pipe; return the exit code."""
    try:
        end_with(parent)
        buffering = 1 if eager else -1
        with open(fd, "w", buffering, encoding="utf-8", errors="surrogateescape") as pipe:
            pipe.writelines(lines)
    except OSError as error:
        return error.errno or _DEFECT
    except Exception:  # noqa: BLE001 - the process's outermost boundary; whoever started it reports the rest
        import traceback  # noqa: PLC0415 - most listings end well

        traceback.print_exc()
        return _DEFECT
    return 0


def _raise_for(code: int) -> None:
    if code == _DEFECT:
        raise RuntimeError("a part of the listing is missing; the process that made it says why above")
    if code > 0:
        raise OSError(code, os.strerror(code))
    if code < 0:
        raise ChildProcessError(f"a part of the listing is missing: signal {-code} ended who made it")


def _merged(fds: Iterable[int]) -> Iterator[str]:
    """Stream the whole lines that come through some pipes, until all have ended."""
    cut = dict.fromkeys(fds, b"")
    ready = select.poll()
    for fd in cut:
        ready.register(fd, select.POLLIN)
    while cut:
        for fd, _ in ready.poll():
            data = os.read(fd, _PIPE)
            whole, end, cut[fd] = (cut[fd] + data).rpartition(b"\n")
            if end:
                # Not splitlines: a line ends at LF alone.
                for line in whole.decode("utf-8", "surrogateescape").split("\n"):
                    yield f"{line}\n"
            if not data:
                ready.unregister(fd)
                del cut[fd]


def _end(workers: dict[int, int]) -> None:
    """End processes that are wanted no more; they only read."""
    for fd, pid in workers.items():
        os.close(fd)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
