"""The position of event delivery in the ledger, and its last failure: `state/events.json`.

The cursor is durable when `write` returns. A file that was removed is as if nothing had ever been told: what
happens from then on is. Of one that cannot be read nobody knows what it has: nothing is told until it can be.
One that cannot be decoded means that the whole ledger is told again, for an event is told once or more.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mailer.maillog.tail import Position
from mailer.spool.layout import FILE_MODE, STATE, Spool
from mailer.spool.state import small_files

NAME, _LOCK = "events.json", "events.lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Cursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Up to where the receiver has taken what the ledger says."""

    positions: dict[str, Position]
    """By day."""
    day: str = ""
    """The day whose next line was told in part; empty: none was."""
    told: int = 0
    """Recipients of that line who were told."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What is known between two tries. Moments are seconds since the epoch."""

    cursor: Cursor
    looked: float
    """When the ledger was last looked at."""
    ends: dict[str, int] = {}
    """The sizes of days that had more to tell when the receiver last refused."""
    taken: float = 0.0
    """When the receiver last took something."""
    failures: int = 0
    """In a row."""
    error: str = ""
    """Why it did not take the last."""
    tried: float = 0.0
    next_try: float = 0.0
    waiting_since: str = ""
    """When the first event that waits happened, as of the last try."""
    gap_since: str = ""
    """Of the last gap that was told; empty: none was."""
    gap_until: str = ""


class Damaged(ValueError):
    """The file is there, and cannot be decoded."""


AGAIN = "the whole ledger is told again (`mailer events replay --since 0m` leaves it out)"
"""What follows from a damaged file."""


def read(spool: Spool) -> Progress | None:
    """Return what was last written; None: nothing.

    Raises:
        OSError: it cannot be read.
        Damaged: it can, and cannot be decoded.
    """
    data = small_files.read_last(spool, NAME, lambda written: _decoded(written) is not None)
    if data is None:
        return None
    if progress := _decoded(data):
        return progress
    raise Damaged(f"{path_of(spool)} cannot be decoded")


def _decoded(data: bytes) -> Progress | None:
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(data, type=Progress)
    return None


def path_of(spool: Spool) -> Path:
    """Return where it is kept."""
    return spool.path / STATE / NAME


def shown(spool: Spool, now: float) -> Progress | None:
    """As `read`, for those who only look: what keeps it from being read is a failure without a try."""
    try:
        return read(spool)
    except OSError as error:
        why = f"{path_of(spool)} cannot be read: {error.strerror}"
    except Damaged as damaged:
        why = f"{damaged}: {AGAIN}"
    return Progress(cursor=Cursor(positions={}), looked=now, failures=1, error=why)


def version(spool: Spool) -> tuple[int, int] | None:
    """Return what changes whenever somebody writes; None: nothing was written. Raises OSError."""
    with spool.directory(STATE) as directory, contextlib.suppress(FileNotFoundError):
        found = os.stat(NAME, dir_fd=directory, follow_symlinks=False)
        return found.st_ino, found.st_mtime_ns
    return None


def write(spool: Spool, progress: Progress) -> None:
    """Put this in the place of what was there, durably; raises OSError."""
    small_files.replace(spool, NAME, msgspec.json.encode(progress) + b"\n")
    spool.sync_directory(STATE)


@contextlib.contextmanager
def locked(spool: Spool, *, wait: bool = False) -> Iterator[bool]:
    """Keep others from telling, or from moving the cursor, for a block; yield whether that is so.

    Args:
        spool: whose events.
        wait: for another that has the lock.

    Raises:
        OSError: the lock's file cannot be made.
    """
    with spool.directory(STATE) as directory:
        fd = os.open(_LOCK, _FLAGS, FILE_MODE, dir_fd=directory)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
