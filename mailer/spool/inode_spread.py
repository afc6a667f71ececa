"""Choose where a busy spool's new files get their inodes, on ext4 without a journal.

That filesystem gives a file an inode near its directory's. It searches from the start of the block group and
skips inodes that were deleted in the last minutes, one by one. A spool deletes as many files as it makes, so
a busy one soon skips thousands for each file: measured, 500-800 us of processor time per file, against 30
with this module.

So a file is made in a scratch directory and immediately renamed to its destination. After some hundred files
the scratch directory is replaced by another in a different part of the disk (its parent has the flag `T` of
chattr(1)). A part of the disk with many recent deletions is left early. Where this does not work, or does not
pay, files are made in the ordinary way. An operator switches it off by giving the filesystem a journal
(`tune2fs -O has_journal`), which the mail is safer with anyway.
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
"""Files that are made in the ordinary way first: a program that makes no more does not need scratch
directories."""
_FILES = 256
"""Files from one scratch directory: few compared to the thousands of inodes of a block group, and enough to
make the cost of a mkdir small."""
_NEVER = -1
_SLOW = 8.0
"""A multiple of the processor time of the quickest file. If a file takes longer, the kernel searched for an
inode, and the directory makes only half of its remaining files. (*Measured on a busy disk: 60 us a file, and
100 if no directory is left early.*)
"""

_AS_NEW = os.O_CREAT | os.O_EXCL
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# linux/fs.h
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_SPREAD_SUBDIRECTORIES = 0x00020000


class InodeSpread:
    """Creates files, from any thread; there is one for each open spool."""

    def __init__(self, root: int) -> None:
        """Prepare; `root` is the spool's descriptor, which remains the caller's."""
        self._root = root
        self._left = _FEW
        self._scratch = ""
        """The scratch directory in use; empty if there is none."""
        self._quickest = math.inf
        """Seconds of processor time that the quickest file took."""
        self._opened = False
        self._lock = threading.Lock()

    def create(self, path: str, flags: int, mode: int) -> int:
        """Open a new file as `os.open` with O_CREAT and O_EXCL does, relative to the spool.

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
                    # Another program has removed the scratch directory when it started, or there is a
                    # worse problem, which the ordinary call below reports better.
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
        """Start a new scratch directory; if that fails, the next files are made in the ordinary way."""
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
        """Make the parent of the scratch directories, and remove what dead programs left there."""
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
        """Remove the scratch directory; the spool's descriptor must still be open."""
        self._leave()


def _sweep(scratch: str, home: int) -> None:
    """Remove a scratch directory and the empty files in it; a running program makes a new one.

    A file with content is a message: after a power cut it may have its old name as well as the new one.
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
