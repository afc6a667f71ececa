"""A queue that is a directory with a file, or some files, for each message."""

import os
import stat
from pathlib import Path

from mailer.imports.queue import MAX_FILE, Queue, Unreadable

IMPORTED = "imported"
"""The directory, in that of the queue, that keeps the files of what was imported."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryQueue(Queue):
    """Files relative to one descriptor: whose directory it is may change it, and leads nobody elsewhere."""

    def __init__(self, path: Path) -> None:
        """Open the directory; raises OSError."""
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.identity = os.fsdecode(os.path.realpath(path))

    def files(self, place: str) -> list[str]:
        """Return the names of regular files in a directory of the queue, sorted; an absent one has none."""
        try:
            fd = os.open(place, _DIRECTORY, dir_fd=self._root)
        except FileNotFoundError:
            return []
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        finally:
            os.close(fd)

    def content(self, path: str) -> bytes:
        """Return what a file has; raises Unreadable, OSError."""
        fd = os.open(path, _FLAGS, dir_fd=self._root)
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode):
                raise Unreadable("it is not a file")
            if state.st_size > MAX_FILE:
                raise Unreadable(f"it has more than {MAX_FILE} octets")
            return file.read(MAX_FILE + 1)

    def put_by(self, *paths: str) -> None:
        """Move files, durably, to where they are kept as imported; raises OSError.

        The last path is that by which the message is found in the queue.
        """
        try:
            os.mkdir(IMPORTED, 0o700, dir_fd=self._root)
        except FileExistsError:
            pass
        else:
            os.fsync(self._root)
        for path in paths:
            place, _, name = path.rpartition("/")
            os.rename(path, f"{IMPORTED}/{name}", src_dir_fd=self._root, dst_dir_fd=self._root)
            for directory in (IMPORTED, place or "."):
                self._sync(directory)

    def _sync(self, directory: str) -> None:
        fd = os.open(directory, _DIRECTORY, dir_fd=self._root)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
