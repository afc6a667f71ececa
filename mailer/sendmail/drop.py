"""The drop directory: who may not write to the spool hands mail over there while no receiver runs.

A drop is one file: the commands of an SMTP session with the octets of the message (`BDAT`), which the next
receiver or runner says to a session of its own. What may be sent, and as whom, is decided there. Here a file
is either whole, durable and named, or it is not there.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from time import gmtime, time

from mailer.sendmail.failure import Failure

PLACES = ("/run/mailer-drop", "/var/spool/mailer/drop")
"""Where it is; `$MAILER_DROP` names another place. The first is a link, for a spool that is elsewhere."""
_FIRST_LINE = "mailer-drop 1"
_MOST_HEAD = 2**20
"""Octets in front of the message, as many as are read when it is taken in."""
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MIN_FREE = 16 * 2**20
_MIN_INODES = 1000
"""What is left free on the filesystem: a program that goes on calling must not fill it. It can do so by other
means; quotas are the kernel's."""
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SHARED = stat.S_ISVTX | stat.S_ISGID
"""Nobody can remove or rename another's file, and each belongs to the directory's group."""
_MINE = stat.S_IRUSR | stat.S_IWUSR
_READABLE = _MINE | stat.S_IRGRP
"""By the directory's group, which is that of the spool's owner, and by nobody else."""


def place() -> str | None:
    """Return the drop directory; None: there is none, or this user may write to the spool itself."""
    named = os.environ.get("MAILER_DROP")
    for path in (named,) if named else PLACES:
        try:
            owner = os.stat(path).st_uid  # noqa: PTH116 - pathlib takes longer than all of this
        except OSError:
            continue
        return None if os.geteuid() in {0, owner} else path
    return None


def hand_over(path: str, commands: list[str], text: bytes) -> str:
    """Leave a message in a drop directory, durably; return its name there.

    Args:
        path: the directory.
        commands: MAIL and RCPT, without line ends.
        text: the message, with CRLF line ends.

    Raises:
        Failure: EX_TEMPFAIL: it is not there; or nobody knows, and then the text says so. EX_DATAERR: its
            envelope is too long for a drop.
    """
    head = "\r\n".join([_FIRST_LINE, *commands, f"BDAT {len(text)} LAST", ""])
    if len(head) > _MOST_HEAD:
        words = (
            f"no receiver runs, and without one {len(commands) - 1} recipients are too many for one message"
        )
        raise Failure(os.EX_DATAERR, words)
    left = ""
    try:
        with _opened(path) as directory:
            _check(directory, len(text))
            name = _new_name()
            left = f".{name}"
            fd = os.open(left, _NEW, _MINE, dir_fd=directory)
            try:
                _write(fd, os.fsencode(head) + text)
                os.rename(left, name, src_dir_fd=directory, dst_dir_fd=directory)
                left = name
                _sync_names(fd)
            except BaseException:
                os.unlink(left, dir_fd=directory)
                left = ""
                raise
            finally:
                os.close(fd)
    except OSError as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        words = f"no receiver runs, and {path} does not take the message: {cause.strerror}"
        if left and not left.startswith("."):
            words += f". It may be sent all the same, from {path}/{left}"
        raise Failure(os.EX_TEMPFAIL, words) from error
    return name


def dated() -> bytes:
    """Return a Date field of now: the receiver would add that of the time when it takes the message in."""
    now = gmtime()
    day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]
    clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
    return f"Date: {day}, {now.tm_mday:02} {month} {now.tm_year} {clock} +0000\n".encode()


@contextmanager
def _opened(path: str) -> Iterator[int]:
    # O_PATH, as it is not for us to read.
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _check(directory: int, size: int) -> None:
    if os.fstat(directory).st_mode & _SHARED != _SHARED:
        raise PermissionError(errno.EPERM, "its mode is to be 3733")
    free = os.fstatvfs(directory)
    if free.f_bavail * free.f_frsize < size + _MIN_FREE or (free.f_files and free.f_favail < _MIN_INODES):
        raise OSError(errno.ENOSPC, "the disk is nearly full")


def _new_name() -> str:
    """Make an id as those of the spool are: the time, and 80 random bits, which nobody guesses."""
    value = int(time() * 1000) << 80 | int.from_bytes(os.urandom(10))
    return "".join([_DIGITS[value >> shift & 31] for shift in range(125, -1, -5)])


def _write(fd: int, data: bytes) -> None:
    """Write all of a file, make it durable, and let the spool's owner read it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fchmod(fd, _READABLE)
    os.fsync(fd)


def _sync_names(fd: int) -> None:
    """Make a file's new name durable: the directory, which is not for us to read, cannot be fsynced."""
    import ctypes  # noqa: PLC0415 - 10 ms, which only this way needs

    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
