"""Make a long listing with several processes, each for a share of the messages; a short one in this process.

Nearly all the time of a listing is spent on opening, reading and describing each message. (*Measured: 100,000
messages take 0.7 s on two processors, 1.25 s on one.*) `taskset -c 0 mailer spool ls` does all of it in one
process, for comparison.
"""

import contextlib
import fcntl
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from mailer.cli.service.children import end_with
from mailer.spool.directory import Spool
from mailer.spool.layout import Place
from mailer.spool.scan import spots
from mailer.spool.view.inspect import EVERYTHING, Share

Lines = Callable[[Share], Iterator[str]]
"""Yields the lines for the messages of a share."""

_MIN_MESSAGES = 5_000
"""Messages from which several processes are worth it: starting one takes as long as listing a few hundred."""
_MAX_PROCESSES = 4
"""The most processes; not more, because each must read all names."""
_PIPE_SIZE = 1 << 20
"""Bytes of the pipe from each process, by which it may be ahead of the reader, if the kernel allows it."""
_DEFECT = 255
"""The exit code of a process with a defect; other exit codes are errno values."""


def processes_for(spool: Spool, places: Iterable[Place]) -> int:
    """Return how many processes should list these places: at most one for each available processor."""
    is_long = any(True for _ in islice(spots(spool, places), _MIN_MESSAGES, None))
    return min(len(os.sched_getaffinity(0)), _MAX_PROCESSES) if is_long else 1


def listed(lines: Lines, processes: int) -> Iterator[str]:
    """Stream all lines, in no particular order.

    Args:
        lines: yields the lines of a share.
        processes: how many processes to start.

    Raises:
        OSError: an error of `lines`; or ChildProcessError if a signal ended a process.
        RuntimeError: a process had a defect, and has printed a traceback on standard error.
    """
    workers = _start_all(lines, processes) if processes > 1 else {}
    if not workers:
        yield from lines(EVERYTHING)
        return
    try:
        yield from _merged(list(workers))
        while workers:
            fd, pid = workers.popitem()
            os.close(fd)
            _raise_for(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        _end(workers)


def _start_all(lines: Lines, processes: int) -> dict[int, int]:
    """Start all processes; return their ids by pipe, or nothing if the system allows no more processes."""
    sys.stdout.flush()  # Otherwise each child would inherit, and perhaps write, what is buffered.
    # If SIGCHLD is inherited as ignored, the exit codes of children are lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    workers: dict[int, int] = {}
    try:
        for number in range(processes):
            fd, pid = _start(lines, Share(number, processes))
            workers[fd] = pid
    except OSError:
        _end(workers)
        return {}
    return workers


def _start(lines: Lines, share: Share) -> tuple[int, int]:
    reading, writing = os.pipe()
    parent = os.getpid()
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if pid == 0:
        code = _DEFECT
        try:
            os.close(reading)
            code = _write(lines(share), writing, parent)
        finally:
            os._exit(code)  # Skip the clean-up at exit, which only the parent must do.
    os.close(writing)
    return reading, pid


def _write(lines: Iterator[str], fd: int, parent: int) -> int:
    """Write lines into a pipe; return the exit code."""
    try:
        end_with(parent)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as pipe:
            pipe.writelines(lines)
    except OSError as error:
        return error.errno or _DEFECT
    except Exception:  # noqa: BLE001 - the process's outermost boundary; the parent reports the failure
        import traceback  # noqa: PLC0415 - most listings succeed

        traceback.print_exc()
        return _DEFECT
    return 0


def _raise_for(code: int) -> None:
    if code == _DEFECT:
        raise RuntimeError("a part of the listing is missing; the process that made it says why above")
    if code > 0:
        raise OSError(code, os.strerror(code))
    if code < 0:
        raise ChildProcessError(
            f"a part of the listing is missing: signal {-code} ended the process that made it"
        )


def _merged(fds: Iterable[int]) -> Iterator[str]:
    """Stream complete lines from all pipes, in the order in which they arrive, until all pipes are closed."""
    cut = dict.fromkeys(fds, b"")
    ready = select.poll()
    for fd in cut:
        ready.register(fd, select.POLLIN)
    while cut:
        for fd, _ in ready.poll():
            data = os.read(fd, _PIPE_SIZE)
            whole, end, cut[fd] = (cut[fd] + data).rpartition(b"\n")
            if end:
                # Not splitlines, which would also split at characters other than LF.
                for line in whole.decode("utf-8", "surrogateescape").split("\n"):
                    yield f"{line}\n"
            if not data:
                ready.unregister(fd)
                del cut[fd]


def _end(workers: dict[int, int]) -> None:
    """Kill processes that are no longer needed; this is safe, because they only read."""
    for fd, pid in workers.items():
        os.close(fd)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
