"""Small files in `state/` that are replaced whole: what one run leaves for the next one to know.

None of them is needed for mail to flow: one that is lost, or cannot be read, is as if it was never written.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from mailer.spool.layout import FILE_MODE, STATE, Spool

_LONGEST = 16 * 2**20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(spool: Spool, name: str) -> bytes | None:
    """Return what was last put there; None: nothing, or nothing that can be read."""
    try:
        return read_if_any(spool, name)
    except OSError:
        return None


def read_if_any(spool: Spool, name: str) -> bytes | None:
    """Return what was last put there; None: nothing; raises OSError: it cannot be read."""
    with spool.directory(STATE) as directory:
        try:
            fd = os.open(name, _OLD, dir_fd=directory)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            return file.read(_LONGEST)


def read_last(spool: Spool, name: str, whole: Callable[[bytes], bool] = bool) -> bytes | None:
    """As `read_if_any`; where a power cut took the name, return what was written for it last.

    Without a journal the old file's inode may be gone from the disk before the directory names the new one:
    then neither has the name, and the new one still has that under which it was written and synced (seen on
    ext4). For what must not be forgotten.

    Args:
        spool: whose file.
        name: the file's.
        whole: tells whether what has no name yet was written to its end.

    Raises:
        OSError: it cannot be read.
    """
    if (found := read_if_any(spool, name)) is not None:
        return found
    with spool.directory(STATE) as directory:
        written: list[tuple[float, bytes]] = []
        for each in _unrenamed(directory, name):
            # It has got its name, or is gone with its program; or it is none of ours.
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                fd = os.open(each, _OLD, dir_fd=directory)
                with os.fdopen(fd, "rb") as file:
                    written.append((os.fstat(fd).st_mtime, file.read(_LONGEST)))
    return max((each for each in written if whole(each[1])), default=(0.0, None))[1]


def remove(spool: Spool, name: str) -> bool:
    """Remove a file, also what `read_last` would find for it; tell whether it was there. Raises OSError.

    It is durable once `state/` is synced.
    """
    with spool.directory(STATE) as directory:
        for each in _unrenamed(directory, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each, dir_fd=directory)
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            return False
    return True


def _unrenamed(directory: int, name: str) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.name.startswith(f".{name}.")]


def replace(spool: Spool, name: str, data: bytes) -> None:
    """Replace a file as a whole, safe against others that do the same at this moment.

    After a power cut the old one or the new one is there; the new one for certain if `state/` is synced then.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    with spool.directory(STATE) as directory:
        temporary = f".{name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)  # Of one that was killed here, as we are numbered.
        fd = os.open(temporary, _NEW, FILE_MODE, dir_fd=directory)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                # Without it a power cut may leave an empty file under the name.
                os.fsync(fd)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise


@contextlib.contextmanager
def alone(spool: Spool) -> Iterator[None]:
    """Keep other programs from a change at the same time, if they let us.

    A stopped one may keep the lock for an hour, and mail does not wait for that: the worst that happens
    without it is that one program forgets what another one learnt.
    """
    with spool.directory(STATE) as directory:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
