"""The files of a log directory: one for each UTC day, read in blocks of whole lines."""

import os
import re
from collections.abc import Iterator

_NAME = re.compile(r"(\d{8})\.jsonl", re.ASCII)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 256 * 1024


def days(directory: int) -> list[str]:
    """Name the days that have a file, the earliest first, given a descriptor of the directory."""
    return sorted(match[1] for name in os.listdir(directory) if (match := _NAME.fullmatch(name)))


def file_of(day: str) -> str:
    return f"{day}.jsonl"


def open_day(directory: int, day: str) -> int:
    """Open a day's file to be read; raises OSError, and never waits."""
    return os.open(file_of(day), _FLAGS, dir_fd=directory)


def blocks(fd: int, offset: int = 0) -> Iterator[bytes]:
    """Stream what a file holds from an offset on, in blocks of whole lines.

    A line without its end, the last one perhaps, is left out: somebody may be writing it.
    """
    size = _BLOCK
    while data := os.pread(fd, size, offset):
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
            offset += end
            size = _BLOCK
        elif len(data) < size:
            return
        else:
            size *= 2  # A line longer than a block: a message to thousands of recipients.
