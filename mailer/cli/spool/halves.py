"""A long listing is made by two processes, each of its half of the messages; a short one by one.

Nearly all its time goes into opening, reading and describing one message after the other, which two
processors do in half of it. (*Measured: 100,000 messages in 0.7 instead of 1.25 s.*)
"""

import contextlib
import fcntl
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NoReturn

from mailer.spool.inspect import Mine, everything
from mailer.spool.layout import Place, Spool
from mailer.spool.scan import spots

_LONG = 5_000
"""Messages from which a second process pays: to start it takes as long as to list a few hundred."""
_AT_ONCE = 200
"""Lines between looks at what the other process has made."""
_PIPE = 1 << 20
"""Octets that the other process may be ahead, where the kernel allows so many."""
_CUT_SHORT = 255
"""Its exit code when it had no error of the system's and did not come to its end."""


def is_long(spool: Spool, places: Iterable[Place]) -> bool:
    """Tell whether there is enough to list for two processes, and a processor for each."""
    return len(os.sched_getaffinity(0)) > 1 and any(True for _ in islice(spots(spool, places), _LONG, None))


def listed(lines: Callable[[Mine], Iterator[str]], *, in_two: bool) -> Iterator[str]:
    """Stream all lines, in no particular order.

    Args:
        lines: makes those of the messages in a share.
        in_two: have another process make half of them.

    Raises:
        OSError: as `lines`, of either process.
        ChildProcessError: the other one ended before its work was done.
    """
    if not in_two:
        yield from lines(everything)
        return
    reading, writing = os.pipe()
    sys.stdout.flush()  # What is in its buffer is to be written once.
    child = os.fork()
    if child == 0:
        os.close(reading)
        _write(lines(_is_odd), writing)
    os.close(writing)
    with contextlib.suppress(OSError):
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _PIPE)
    try:
        yield from _merged(lines(_is_even), reading)
    finally:
        os.close(reading)  # If nobody reads on, the other process ends at its next line.
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended in range(1, _CUT_SHORT):
        raise OSError(ended, os.strerror(ended))
    if ended:
        raise ChildProcessError("half of the listing is missing: the process that made it ended early")


def _is_odd(name: str) -> bool:
    return bool(ord(name[-1]) & 1)


def _is_even(name: str) -> bool:
    return not _is_odd(name)


def _write(lines: Iterator[str], fd: int) -> NoReturn:
    """Write lines to the other process, and end; the exit code is the number of the error."""
    code = _CUT_SHORT
    try:
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as pipe:
            pipe.writelines(lines)
        code = 0
    except BrokenPipeError:
        code = 0  # Nobody reads on.
    except OSError as error:
        code = error.errno or _CUT_SHORT
    except Exception:  # noqa: BLE001 - the process's outermost boundary; the other one says that half is missing
        traceback.print_exc()
    finally:
        os._exit(code)  # Without what the program does at its end: that is done once.


def _merged(lines: Iterator[str], fd: int) -> Iterator[str]:
    """Stream lines, and between them those that come through a pipe, until both have ended."""
    rest = b""
    os.set_blocking(fd, False)
    while mine := "".join(islice(lines, _AT_ONCE)):
        yield mine
        with contextlib.suppress(BlockingIOError):
            while data := os.read(fd, _PIPE):
                whole, end, rest = (rest + data).rpartition(b"\n")
                yield _text(whole + end)
    os.set_blocking(fd, True)
    while data := os.read(fd, _PIPE):
        whole, end, rest = (rest + data).rpartition(b"\n")
        yield _text(whole + end)


def _text(lines: bytes) -> str:
    return lines.decode("utf-8", "surrogateescape")
