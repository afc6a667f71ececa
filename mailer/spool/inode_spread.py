"""Where a busy spool's new files get their inodes, on ext4 without a journal.

That filesystem gives a file an inode near its directory's and passes over those deleted in the last minutes,
one by one, from the start of the block group. A spool deletes as many files as it makes, so a busy one soon
searches past thousands for each: measured, 500-800 us of processor time a file, against 30 from here.

A file is therefore made in a directory of its own kind, which is replaced after some hundred files by another
in a different part of the disk (its parent has the flag `T` of chattr(1)), and is at once renamed to where it
was to be. A part of the disk where much was deleted lately is left early. Where all this does not work, or
does not pay, files are made as everywhere.
"""

import contextlib
import fcntl
import math
import os
import struct
import threading
from time import thread_time

from mailer.spool.journalling import lacks_journal
from mailer.spool.syscalls import rename_exclusive

HOME = "state/nursery"
_FEW = 64
"""Files that are made the ordinary way first: who makes no more needs none of this."""
_FILES = 256
"""Files from one directory: few beside a block group's thousands, and many beside the cost of a mkdir."""
_NEVER = -1
_SLOW = 8.0
"""Times what the quickest file took, in processor time. One that takes longer was searched a place, and
halves what its directory still makes. (*Measured on a busy disk: 60 us a file, and 100 where no
directory is left early.*)
"""

_AS_NEW = os.O_CREAT | os.O_EXCL
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# linux/fs.h
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_SPREAD_SUBDIRECTORIES = 0x00020000


class InodeSpread:
    """Makes files, for any thread; one per open spool."""

    def __init__(self, root: int) -> None:
        """Make nothing yet; `root` is the spool's descriptor, which stays the caller's."""
        self._root = root
        self._left = _FEW
        self._scratch = ""
        """The directory in use; empty: none."""
        self._quickest = math.inf
        """Seconds of processor."""
        self._opened = False
        self._lock = threading.Lock()

    def create(self, path: str, flags: int, mode: int) -> int:
        """As `os.open` with O_CREAT and O_EXCL, relative to the spool.

        Raises:
            OSError: as open(2), such as EEXIST; nothing was created.
        """
        with self._lock:
            if not self._left:
                self._move_on()
            self._left -= 1
            if self._scratch:
                try:
                    return self._create_and_rename(path, flags, mode)
                except OSError:
                    # Another program's start has removed it, or worse, of which the ordinary way has
                    # the better words.
                    self._leave()
        return os.open(path, flags | _AS_NEW, mode, dir_fd=self._root)

    def _create_and_rename(self, path: str, flags: int, mode: int) -> int:
        scratch_name = f"{self._scratch}/{path[path.rfind('/') + 1 :]}"
        began = thread_time()
        fd = os.open(scratch_name, flags | _AS_NEW, mode, dir_fd=self._root)
        took = thread_time() - began
        self._quickest = min(self._quickest, took)
        if took > _SLOW * self._quickest:
            self._left //= 2
        try:
            rename_exclusive(self._root, scratch_name, path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(scratch_name, dir_fd=self._root)
            raise
        return fd

    def _move_on(self) -> None:
        """Begin another scratch directory; without one, the next files are made the ordinary way."""
        self._leave()
        self._left = _FILES
        with contextlib.suppress(OSError):
            if not self._opened:
                if not lacks_journal(self._root):
                    self._left = _NEVER
                    return
                self._open()
            scratch = f"{HOME}/{os.urandom(8).hex()}"
            os.mkdir(scratch, 0o700, dir_fd=self._root)
            self._scratch = scratch

    def _open(self) -> None:
        """Make the parent of scratch directories, and remove what dead programs left."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(HOME, 0o700, dir_fd=self._root)
        home = os.open(HOME, _DIRECTORY, dir_fd=self._root)
        try:
            with contextlib.suppress(OSError):
                flags = bytearray(struct.calcsize("l"))
                fcntl.ioctl(home, _GET_FLAGS, flags)
                (before,) = struct.unpack("l", flags)
                fcntl.ioctl(home, _SET_FLAGS, struct.pack("l", before | _SPREAD_SUBDIRECTORIES))
            with os.scandir(home) as entries:
                for scratch in entries:
                    _sweep(scratch.name, home)
        finally:
            os.close(home)
        self._opened = True

    def _leave(self) -> None:
        scratch, self._scratch = self._scratch, ""
        if scratch:
            with contextlib.suppress(OSError):
                os.rmdir(scratch, dir_fd=self._root)

    def close(self) -> None:
        """Leave nothing behind; the spool's descriptor is still open."""
        self._leave()


def _sweep(scratch: str, home: int) -> None:
    """Remove a scratch directory and empty files in it; a living program makes its own anew elsewhere.

    One with content is a message: a power cut may show it under its old name beside the new one.
    """
    with contextlib.suppress(OSError):
        fd = os.open(scratch, _DIRECTORY, dir_fd=home)
        try:
            with os.scandir(fd) as litter:
                for each in litter:
                    if each.stat(follow_symlinks=False).st_size == 0:
                        os.unlink(each.name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(scratch, dir_fd=home)
