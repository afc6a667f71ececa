"""The system calls that Python's `os` lacks, and what to do where a filesystem lacks them too."""

import ctypes
import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

_RENAME_NOREPLACE = 1
_FALLOC_KEEP_SIZE = 1
_SYNC_FILE_RANGE_WRITE = 2
_SYNCFS_TELLS = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2]) >= (5, 8)
"""syncfs(2): before, it said that all was well when writing had failed."""
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


def rename_exclusive(directory: int, source: str, target: str) -> None:
    """Rename `source` to `target`, both relative to the directory descriptor; never replace a file.

    On a filesystem without RENAME_NOREPLACE it looks first and renames then; the caller holds the
    file's lock and ids are unique, so only an intruder could use that gap.

    Raises:
        FileExistsError: there is a `target`; nothing changed.
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
    """Call renameat2(2) with RENAME_NOREPLACE, and nothing else; see `rename_exclusive`.

    Raises:
        OSError: FileExistsError, EINVAL where the filesystem has no such flag, or as rename(2).
    """
    # os.fsencode is Python of its own, and nearly every name is an id.
    old = source.encode() if source.isascii() else os.fsencode(source)
    new = target.encode() if target.isascii() else os.fsencode(target)
    if _libc.renameat2(directory, old, directory, new, _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), source, None, target)


def reserve(fd: int, offset: int, length: int) -> bool:
    """Keep room for `length` bytes from `offset`, without changing the file's size; tell whether it did.

    Where the filesystem cannot reserve, nothing happens: the write itself will tell.

    Raises:
        OSError: ENOSPC, EDQUOT or EIO; nothing is reserved.
    """
    code = errno.EINTR
    # PEP 475 is for `os`; here a signal is ours to bear.
    while code == errno.EINTR:
        if _libc.fallocate(fd, _FALLOC_KEEP_SIZE, offset, length) == 0:
            return True
        code = ctypes.get_errno()
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code))
    return False


def read_at(fd: int, length: int, offset: int) -> bytes:
    """Read `length` bytes from an offset; fewer only where the file ends.

    One pread(2) that returns fewer does not mean the end: what comes before a bad sector is returned first,
    and only the next call says EIO.

    Raises:
        OSError: as pread(2); what was read before it does not count.
    """
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write everything, however often write(2) stops short (a signal, a nearly full disk); raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def begin_writing(fd: int) -> None:
    """Start writing a file's bytes to the disk, and do not wait; only an fsync makes them durable.

    Where that is not possible nothing happens, and the fsync does all the work.
    """
    _libc.sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


def check_takes_changes(fd: int) -> None:
    """Ask a filesystem for a change that changes nothing: that an attribute be removed that no file has.

    Of the calls without effect, the one whose trouble every filesystem tells (fchmod(2) of ext4 does not).

    Raises:
        OSError: EROFS or EIO; a journal could not be written, and nothing is from then on.
    """
    try:
        os.removexattr(fd, "user.mailer")
    except OSError as error:
        if error.errno in {errno.EROFS, errno.EIO}:
            raise


def sync_filesystem(fd: int) -> bool:
    """Make everything that was written to a file's filesystem durable; tell whether it is.

    False if that failed, or the kernel would not report a failure (before Linux 5.8): then sync each.
    """
    return _SYNCFS_TELLS and _libc.syncfs(fd) == 0


class Mount(NamedTuple):
    """What /proc/self/mountinfo says of a filesystem."""

    kind: str = ""
    """Its type, such as `ext4`; empty when unknown."""
    options: frozenset[str] = frozenset()
    """Of the mount and of the filesystem (proc_pid_mountinfo(5), fields 6 and 11)."""


_MOUNTINFO = "/proc/self/mountinfo"


def mount_of(device: int, mountinfo: str = _MOUNTINFO) -> Mount:
    """Find the filesystem with this device number; unknown, when it is not listed."""
    return _mount(2, f"{os.major(device)}:{os.minor(device)}", mountinfo)


def mount_at(fd: int, mountinfo: str = _MOUNTINFO) -> Mount:
    """Find the filesystem that an open file is on, by its mount; unknown, when that is not listed."""
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
    """Return this boot's id; empty where the kernel tells none."""
    try:
        return path.read_bytes().decode("ascii").strip()
    except OSError:
        return ""
