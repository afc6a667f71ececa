"""Writes drops: files in which users who may not write to the spool leave mail while no receiver runs.

A drop is one file with the commands of an SMTP session and the octets of the message (`BDAT`). The next
receiver or runner replays it to a session, which decides what may be sent and as which sender. A drop gets
its name only once its content is complete and durable.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from time import gmtime, time

from mailer.sendmail.failure import Failure

PLACES = ("/run/mailer-drop", "/var/spool/mailer/drop")
"""Paths of the drop directory; `$MAILER_DROP` overrides them. The first is a link, for a spool elsewhere."""
_FIRST_LINE = "mailer-drop 1"
_MOST_HEAD = 2**20
"""Octets before the message; the reader of drops has the same limit."""
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MIN_FREE = 16 * 2**20
_MIN_INODES = 1000
"""Octets and inodes to leave free on the filesystem, so that a program in a loop does not fill it. This is no
protection against malicious users, for which the kernel has quotas."""
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STICKY_SETGID = stat.S_ISVTX | stat.S_ISGID
"""Mode bits of the directory: users cannot remove or rename files of others (sticky), and each file belongs
to the directory's group (setgid)."""
_PRIVATE = stat.S_IRUSR | stat.S_IWUSR
"""The mode of a file that is being written."""
_READABLE = _PRIVATE | stat.S_IRGRP
"""The mode of a finished drop: the directory's group, which is that of the spool's owner, can read it."""


def place() -> str | None:
    """Return the path of the drop directory; None: there is none, or this user may write to the spool."""
    named = os.environ.get("MAILER_DROP")
    for path in (named,) if named else PLACES:
        try:
            owner = os.stat(path).st_uid  # noqa: PTH116 - pathlib takes longer than all of this
        except OSError:
            continue
        return None if os.geteuid() in {0, owner} else path
    return None


def hand_over(path: str, commands: list[str], text: bytes) -> str:
    """Write a message to a drop directory durably; return the name of the drop.

    Args:
        path: the directory.
        commands: MAIL and RCPT, without line ends.
        text: the message, with CRLF line ends.

    Raises:
        Failure: with EX_TEMPFAIL, if there is no drop, or if that is unknown, which the text then says; with
            EX_DATAERR, if the envelope is too long for a drop.
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
            fd = os.open(left, _NEW, _PRIVATE, dir_fd=directory)
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
    """Return a Date field with the present time; one from the receiver would have the time of the pickup."""
    now = gmtime()
    day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]
    clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
    return f"Date: {day}, {now.tm_mday:02} {month} {now.tm_year} {clock} +0000\n".encode()


@contextmanager
def _opened(path: str) -> Iterator[int]:
    # O_PATH, because this user may not read the directory.
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _check(directory: int, size: int) -> None:
    if os.fstat(directory).st_mode & _STICKY_SETGID != _STICKY_SETGID:
        raise PermissionError(errno.EPERM, "its mode must be 3733")
    free = os.fstatvfs(directory)
    # Numbers that are not within their totals are unknown, not none: `mailer.spool.free_space` has examples.
    few_blocks = 0 <= free.f_bavail <= free.f_blocks and free.f_bavail * free.f_frsize < size + _MIN_FREE
    few_inodes = 0 <= free.f_favail <= free.f_files and free.f_favail < _MIN_INODES
    if (few_blocks and free.f_blocks) or (few_inodes and free.f_files):
        raise OSError(errno.ENOSPC, "the disk is nearly full")


def _new_name() -> str:
    """Return an id in the format of the spool's: the time, and 80 random bits, which cannot be guessed."""
    value = int(time() * 1000) << 80 | int.from_bytes(os.urandom(10))
    return "".join([_DIGITS[value >> shift & 31] for shift in range(125, -1, -5)])


def _write(fd: int, data: bytes) -> None:
    """Write a file completely, let the spool's owner read it, and fsync it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fchmod(fd, _READABLE)
    os.fsync(fd)


def _sync_names(fd: int) -> None:
    """Make a file's new name durable with syncfs, because this user cannot open the directory to fsync it."""
    import ctypes  # noqa: PLC0415 - takes 10 ms, and is rarely needed

    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
