"""System calls that Python's `os` lacks, and fallbacks for filesystems that lack them too."""

import errno
import os
import re
from functools import cache
from pathlib import Path

import msgspec

from mailer.ground.libc import last_error
from mailer.ground.libc import libc as _libc

_RENAME_NOREPLACE = 1
_FALLOC_KEEP_SIZE = 1
_SYNC_FILE_RANGE_WRITE = 2
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def rename_exclusive(directory: int, source: str, target: str) -> None:
    """Rename `source` to `target`, both relative to the directory descriptor; never replace a file.

    On a filesystem without RENAME_NOREPLACE it checks for `target` first and then renames. The caller holds
    the file's lock and ids are unique, so only an intruder could use the gap between the two.

    Raises:
        FileExistsError: `target` exists; nothing changed.
        OSError: as rename(2); nothing changed.
    """
    try:
        rename_without_replacing(directory, source, target)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    else:
        return
    try:
        os.stat(target, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, target, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)


def rename_without_replacing(directory: int, source: str, target: str) -> None:
    """Call renameat2(2) with RENAME_NOREPLACE, without a fallback; see `rename_exclusive`.

    Raises:
        OSError: FileExistsError; EINVAL if the filesystem lacks the flag; or as rename(2).
    """
    # os.fsencode is slow Python code, and nearly every name is an ASCII id.
    old = source.encode() if source.isascii() else os.fsencode(source)
    new = target.encode() if target.isascii() else os.fsencode(target)
    if _libc.renameat2(directory, old, directory, new, _RENAME_NOREPLACE) != 0:
        code = last_error()
        raise OSError(code, os.strerror(code), source, None, target)


def reserve(fd: int, offset: int, length: int) -> bool:
    """Reserve blocks for `length` bytes from `offset`, keeping the file's size; return whether it did.

    On a filesystem that cannot reserve, nothing happens, and the write itself may fail later.

    Raises:
        OSError: ENOSPC, EDQUOT or EIO; nothing is reserved.
    """
    code = errno.EINTR
    # PEP 475 (retry after EINTR) covers only `os`, so calls interrupted by a signal are repeated here.
    while code == errno.EINTR:
        if _libc.fallocate(fd, _FALLOC_KEEP_SIZE, offset, length) == 0:
            return True
        code = last_error()
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code))
    return False


def read_at(fd: int, length: int, offset: int) -> bytes:
    """Read `length` bytes from an offset; fewer only at the end of the file.

    A short pread(2) does not mean the end: the bytes before a bad sector are returned first, and only the
    next call fails with EIO.

    Raises:
        OSError: as pread(2); bytes read before the error are discarded.
    """
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write all bytes, in as many calls of write(2) as it takes; raises OSError."""
    written = os.write(fd, data) if data else 0
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def begin_writing(fd: int) -> None:
    """Start writing a file's bytes to the disk without waiting; only an fsync makes them durable.

    If that is not supported, nothing happens, and the fsync does all the work.
    """
    _libc.sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


def check_takes_changes(fd: int) -> None:
    """Check that a filesystem accepts changes, by removing an attribute that no file has.

    It is the call without effect whose failure every filesystem reports (ext4's fchmod(2) does not).

    Raises:
        OSError: EROFS or EIO: the journal could not be written, and nothing will be from then on.
    """
    try:
        os.removexattr(fd, "user.mailer")
    except OSError as error:
        if error.errno in {errno.EROFS, errno.EIO}:
            raise


def sync_filesystem(fd: int) -> bool:
    """Make everything written to a file's filesystem durable; return whether that succeeded.

    It returns False if it failed, or if the kernel does not report failures (before Linux 5.8): the caller
    then syncs each file and directory.
    """
    return _syncfs_reports() and bool(_libc.syncfs(fd) == 0)


@cache
def _syncfs_reports() -> bool:
    """Return whether syncfs(2) reports failed writes; before Linux 5.8 it returned success."""
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2]) >= (5, 8)


class Mount(msgspec.Struct, frozen=True):
    """A filesystem as listed in /proc/self/mountinfo."""

    kind: str = ""
    """Its type, such as `ext4`; empty if unknown."""
    options: frozenset[str] = frozenset()
    """The options of the mount and of the filesystem (proc_pid_mountinfo(5), fields 6 and 11)."""


_MOUNTINFO = "/proc/self/mountinfo"


def mount_of(device: int, mountinfo: str = _MOUNTINFO) -> Mount:
    """Find the filesystem with this device number; the result is empty if it is not listed."""
    return _mount(2, f"{os.major(device)}:{os.minor(device)}", mountinfo)


def mount_at(fd: int, mountinfo: str = _MOUNTINFO) -> Mount:
    """Find the filesystem of an open file by its mount; the result is empty if that is not listed."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as about:  # noqa: PTH123 - procfs
            mounts = [line.split()[1] for line in about if line.startswith("mnt_id:")]
    except (OSError, IndexError):
        return Mount()
    return _mount(0, mounts[0], mountinfo) if mounts else Mount()


def _mount(field: int, wanted: str, mountinfo: str) -> Mount:
    try:
        with open(mountinfo, encoding="utf-8", errors="replace") as mounts:  # noqa: PTH123 - procfs, a line at a time
            for line in mounts:
                fields = line.split()
                if fields[field] == wanted:
                    kind, _, options = fields[fields.index("-") + 1 :][:3]
                    return Mount(kind, frozenset((*fields[5].split(","), *options.split(","))))
    except (OSError, ValueError):
        pass
    return Mount()


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return this boot's id; empty if the kernel does not provide it."""
    try:
        return path.read_bytes().decode("ascii").strip()
    except OSError:
        return ""
