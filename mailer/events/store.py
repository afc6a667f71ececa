"""Store the position of event delivery in the ledger, and its last failure, in `state/events.json`.

The cursor is durable when `write` returns. If the file is missing, delivery starts at the current end of the
ledger. If it cannot be read, its content is unknown and nothing is delivered until it can be. If it cannot be
decoded, the whole ledger is delivered again, since events are delivered at least once.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mailer.maillog.tail import Position
from mailer.spool.directory import Spool
from mailer.spool.layout import FILE_MODE, STATE
from mailer.spool.state import small_files

NAME, _LOCK = "events.json", "events.lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Cursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The position in the ledger up to which the receiver has accepted events."""

    positions: dict[str, Position]
    """The position within each day's file."""
    day: str = ""
    """The day whose next line was delivered for some of its recipients; empty: no such line."""
    told: int = 0
    """Recipients of that line whose events were delivered."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The state of event delivery between two tries. Times are seconds since the epoch."""

    cursor: Cursor
    looked: float
    """When the ledger was last read."""
    ends: dict[str, int] = {}
    """The file sizes of the days with undelivered lines at the last failure."""
    taken: float = 0.0
    """When the receiver last accepted events."""
    failures: int = 0
    """Consecutive failures."""
    error: str = ""
    """Why the last try failed."""
    tried: float = 0.0
    next_try: float = 0.0
    waiting_since: str = ""
    """The time of the first undelivered event, as of the last try."""
    gap_since: str = ""
    """The beginning of the last gap that was reported; empty: none was."""
    gap_until: str = ""


class Damaged(ValueError):
    """The file exists and cannot be decoded."""


AGAIN = "all events of the ledger are delivered again (`mailer events replay --since 0m` skips them)"
"""The consequence of a damaged file, for messages."""


def read(spool: Spool) -> Progress | None:
    """Return what was last written; None: nothing was.

    Raises:
        OSError: the file cannot be read.
        Damaged: the file cannot be decoded.
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
    """Return the path of the file."""
    return spool.path / STATE / NAME


def shown(spool: Spool, now: float) -> Progress | None:
    """Return what `read` returns, or, if it raises, a progress with one failure that says why."""
    try:
        return read(spool)
    except OSError as error:
        why = f"{path_of(spool)} cannot be read: {error.strerror}"
    except Damaged as damaged:
        why = f"{damaged}: {AGAIN}"
    return Progress(cursor=Cursor(positions={}), looked=now, failures=1, error=why)


def version(spool: Spool) -> tuple[int, int] | None:
    """Return a value that changes with each write; None: nothing was written. Raises OSError."""
    with spool.directory(STATE) as directory, contextlib.suppress(FileNotFoundError):
        found = os.stat(NAME, dir_fd=directory, follow_symlinks=False)
        return found.st_ino, found.st_mtime_ns
    return None


def write(spool: Spool, progress: Progress) -> None:
    """Replace the file durably; raises OSError."""
    small_files.replace(spool, NAME, msgspec.json.encode(progress) + b"\n")
    spool.sync_directory(STATE)


@contextlib.contextmanager
def locked(spool: Spool, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock that delivering and moving the cursor require; yield whether it was acquired.

    Args:
        spool: the spool whose events are delivered.
        wait: wait for another process that holds the lock.

    Raises:
        OSError: the lock file cannot be created.
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
