"""Small files that are written as a whole, so that a power cut leaves no part of one under its name.

All names are relative to a directory's descriptor, and links are never followed. An O_PATH descriptor will do
for writing. The name itself is durable once the directory has been synced, which is left to the caller: with
`sync_directory`, or in the spool, which checks its filesystem at that moment, with its own.
"""

import contextlib
import os
import threading
from collections.abc import Callable

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(
    name: str, data: bytes, directory: int, mode: int, prepare: Callable[[int], None] | None = None
) -> None:
    """Write a new file and sync it; never overwrite one.

    Args:
        name: of the file, in the directory.
        data: its content.
        directory: the directory's descriptor.
        mode: its permissions, less those of the umask.
        prepare: called with the empty file's descriptor to set its owner or permissions, so that the content
            is never readable by others.

    Raises:
        FileExistsError: the name exists, also as a link; nothing was changed.
        OSError: the file cannot be written; no part of it was left behind.
    """
    fd = os.open(name, _NEW, mode, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            if prepare is not None:
                prepare(fd)
            file.write(data)
            file.flush()
            # Otherwise a power cut may leave an empty file under the name.
            os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise


def replace(
    name: str, data: bytes, directory: int, mode: int, prepare: Callable[[int], None] | None = None
) -> None:
    """Replace a file as a whole, or create it, safely even if other threads or programs do so at this moment.

    After a power cut either the old or the new file exists; the new one if the directory was synced after
    this.

    Args:
        name: of the file, in the directory.
        data: the new content.
        directory: the directory's descriptor.
        mode: as for `create`; the old file's owner and permissions are not taken over.
        prepare: as for `create`.

    Raises:
        OSError: the new file cannot be written; the old one stays.
    """
    # Of the thread: two threads of a program may replace one file, and must not write into each other's.
    temporary = f".{name}.{threading.get_native_id()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)  # Left by a killed program that had our thread's id.
    create(temporary, data, directory, mode, prepare)
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def unrenamed(name: str, directory: int) -> list[str]:
    """Return the temporary names under which replacements of a file were written and not yet renamed.

    An O_PATH descriptor cannot be listed. Raises OSError.
    """
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.name.startswith(f".{name}.")]


def sync_directory(directory: int) -> None:
    """Make names in a directory durable, or their absence; the descriptor may be an O_PATH one.

    Raises:
        OSError: the disk failed, or we may not read the directory.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
