"""Small files in `state/` that are replaced as a whole, through which one run passes information to the next.

Mail flows without any of them: a file that is lost, or cannot be read, counts as never written.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from mailer.ground import durable
from mailer.spool.directory import Spool
from mailer.spool.layout import FILE_MODE, STATE

_LONGEST = 16 * 2**20
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(spool: Spool, name: str) -> bytes | None:
    """Return a file's content; None if it does not exist or cannot be read."""
    try:
        return read_if_any(spool, name)
    except OSError:
        return None


def read_if_any(spool: Spool, name: str) -> bytes | None:
    """Return a file's content; None if it does not exist; raises OSError if it cannot be read."""
    with spool.directory(STATE) as directory:
        try:
            fd = os.open(name, _OLD, dir_fd=directory)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            return file.read(_LONGEST)


def read_last(spool: Spool, name: str, whole: Callable[[bytes], bool] = bool) -> bytes | None:
    """Do as `read_if_any`; if a power cut removed the name, return what was last written for it.

    On a filesystem without a journal, the old file's inode may be gone from the disk before the directory
    names the new one. Then neither has the name, and the new one is still under the temporary name with which
    it was written and synced (seen on ext4). This is for files that must not be lost.

    Args:
        spool: the spool.
        name: the file's name.
        whole: returns whether content under a temporary name was written to its end.

    Raises:
        OSError: it cannot be read.
    """
    if (found := read_if_any(spool, name)) is not None:
        return found
    with spool.directory(STATE) as directory:
        written: list[tuple[float, bytes]] = []
        for each in durable.unrenamed(name, directory):
            # It was renamed, or removed together with its program; or it is not one of our files.
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                fd = os.open(each, _OLD, dir_fd=directory)
                with os.fdopen(fd, "rb") as file:
                    written.append((os.fstat(fd).st_mtime, file.read(_LONGEST)))
    return max((each for each in written if whole(each[1])), default=(0.0, None))[1]


def remove(spool: Spool, name: str) -> bool:
    """Remove a file, with what `read_last` would find for it; return whether it existed. Raises OSError.

    The removal is durable once `state/` is synced.
    """
    with spool.directory(STATE) as directory:
        for each in durable.unrenamed(name, directory):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each, dir_fd=directory)
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            return False
    return True


def replace(spool: Spool, name: str, data: bytes) -> None:
    """Replace a file as a whole, safely even if other programs do the same at this moment.

    After a power cut either the old or the new file exists; if `state/` was synced after this, the new one.

    Raises:
        OSError: it cannot be written; the old file stays.
    """
    with spool.directory(STATE) as directory:
        durable.replace(name, data, directory, FILE_MODE)


@contextlib.contextmanager
def alone(spool: Spool) -> Iterator[None]:
    """Keep other programs from making a change at the same time, if the lock is free.

    A stopped program may hold the lock for an hour, and mail does not wait for that: the worst that can
    happen without the lock is that one program overwrites what another one learned.
    """
    with spool.directory(STATE) as directory:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
