"""The files of a log directory: one for each UTC day, read in pieces of whole lines."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from mailer.mail import clock
from mailer.mail.lazy_pattern import compile_late

_NAME = compile_late(r"(\d{8})\.jsonl", re.ASCII)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_FILE = {errno.ELOOP, errno.ENXIO, errno.ENODEV}
"""The errors of opening a symbolic link, a socket or a device."""
_BLOCK = 256 * 1024
_PROBE = 4096
"""Bytes that are searched for the start of a line; most lines are a tenth of this."""
_TIME = compile_late(rb'\{"at":"([0-9TZ:.-]{20,27})"')


def days(directory: int) -> list[str]:
    """Return the days that have a file, earliest first, given a descriptor of the directory."""
    return sorted(match[1] for name in os.listdir(directory) if (match := _NAME.fullmatch(name)))


def file_of(day: str) -> str:
    return f"{day}.jsonl"


def open_day(directory: int, day: str) -> int:
    """Open a day's file for reading, without blocking.

    Raises:
        FileNotFoundError: it does not exist, or is not a regular file.
        OSError: as open(2).
    """
    try:
        fd = os.open(file_of(day), _FLAGS, dir_fd=directory)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(error.errno, error.strerror) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return fd


def blocks(fd: int, offset: int = 0) -> Iterator[bytes]:
    """Yield a file's content from an offset on, in blocks of whole lines.

    A line without an end, perhaps the last one, is left out: a program may be writing it.

    Raises:
        OSError: it cannot be read; the blocks before were yielded.
    """
    size = _BLOCK
    while data := _read(fd, size, offset):
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
            offset += end
            size = _BLOCK
        elif len(data) < size:
            return
        else:
            size *= 2  # The line is longer than a block: a message to thousands of recipients.


class Piece(NamedTuple):
    """A part of a file that consists of whole lines and has not been read yet."""

    start: int
    end: int
    first: float | None
    """When its first line was written, in seconds since the epoch; None if unknown."""
    following: float | None
    """The same for the first line after it."""


def pieces(fd: int, end: int) -> list[Piece]:
    """Divide a file, up to an offset, into pieces, reading only a few bytes of each."""
    cuts: list[tuple[int, float | None]] = [(0, _time(os.pread(fd, _PROBE, 0)))]
    for position in range(_BLOCK, end, _BLOCK):
        probe = os.pread(fd, _PROBE, position)
        start = probe.find(b"\n") + 1
        if start and position + start < end:
            cuts.append((position + start, _time(probe[start:])))
    cuts.append((end, None))
    return [Piece(start, stop, first, after) for (start, first), (stop, after) in pairwise(cuts)]


def read_piece(fd: int, piece: Piece) -> bytes:
    return _read(fd, piece.end - piece.start, piece.start)


def _read(fd: int, length: int, offset: int) -> bytes:
    """Read `length` bytes, fewer only at the end of the file; one pread may also stop at a bad sector."""
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def _time(line: bytes) -> float | None:
    if found := _TIME.match(line):
        with contextlib.suppress(ValueError):
            return clock.seconds(found[1].decode())
    return None
