"""One file of `drop/`, read and checked for submission; `drop` describes its format.

Its user may write to it at any time, so each part of it is read only once, and checked as it was read.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from mailer.spool import idempotency
from mailer.spool.directory import Spool
from mailer.spool.flock import lock
from mailer.spool.key_file import name_of_drop
from mailer.spool.layout import DROP
from mailer.spool.syscalls import read_at

_FIRST_LINE = b"mailer-drop 1\r\n"
_MOST_HEAD = 2**20
"""Octets before the message that are read at most: enough for some thousands of recipients."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE = 64 * 1024
_NOBODY = 65_534
"""The user id that the kernel reports for a user outside of our user namespace (proc(5), overflowuid)."""
_ALL_USERS = 2**32 - 1


class Damaged(ValueError):
    """A file is not what `mailer-sendmail` makes; the text says why."""


class Drop:
    """One drop, open and locked, so that no other program submits it."""

    def __init__(self, spool: Spool, name: str, fd: int) -> None:
        """Take over a descriptor; raises Damaged, OSError."""
        self._spool = spool
        self._fd = fd
        self.name = name
        found = os.fstat(fd)
        self.uid = found.st_uid
        self._check(found)
        head = read_at(fd, _MOST_HEAD, 0)
        *commands, last = _head(head).decode("utf-8", "surrogateescape").split("\r\n")
        self._begin = found.st_size - _announced(last)
        self.commands = tuple(commands)
        """The MAIL and RCPT commands."""
        self.size = found.st_size - self._begin
        """The message's size in octets."""
        if self._begin != len(_FIRST_LINE) + len(_head(head)) + 2:
            raise Damaged("it is shorter or longer than it says")

    @classmethod
    def lock(cls, spool: Spool, name: str) -> Self | None:
        """Open and lock a drop; None if it is gone, or another program holds it.

        Raises:
            Damaged: it does not have a drop's format.
            OSError: it cannot be read.
        """
        try:
            fd = os.open(f"{DROP}/{name}", _FLAGS, dir_fd=spool.root)
        except FileNotFoundError:
            return None
        try:
            if lock(fd) and os.fstat(fd).st_nlink:
                return cls(spool, name, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise Damaged("it is not a regular file")
        if found.st_nlink > 1:
            raise Damaged("it has another name as well")
        with self._spool.directory(DROP) as directory:
            if found.st_gid != os.fstat(directory).st_gid:
                raise Damaged("it was not made here: its group is not the directory's")
        if self.uid == _NOBODY and _users_here() < _ALL_USERS:
            raise OSError(errno.EPERM, "its user is not known in this user namespace (PrivateUsers=)")

    @property
    def once(self) -> str:
        """The name of its file in `once/`."""
        return name_of_drop(self.uid, self.name)

    def read(self) -> Iterator[bytes]:
        """Yield the message in pieces; call it once, since its user may write to the file at any time.

        Raises:
            Damaged: the file has become shorter.
            OSError: it cannot be read.
        """
        left, at = self.size, self._begin
        while left:
            data = os.pread(self._fd, min(left, _PIECE), at)
            if not data:
                raise Damaged("it was cut while it was read")
            left, at = left - len(data), at + len(data)
            yield data

    def remove(self) -> None:
        """Remove the drop durably, after its message is in the spool; raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(f"{DROP}/{self.name}", dir_fd=self._spool.root)
        self._spool.sync_directory(DROP)
        idempotency.forget(self._spool, self.once)

    def release(self) -> None:
        os.close(self._fd)


def _head(data: bytes) -> bytes:
    """Return the commands of a drop whose start this is: BDAT is the last, without its line end."""
    end = data.find(b"\r\n", data.find(b"\r\nBDAT ") + 2)
    if not data.startswith(_FIRST_LINE) or b"\r\nBDAT " not in data or end < 0:
        raise Damaged("it does not begin like a drop")
    head = data[len(_FIRST_LINE) : end]
    mail, *to = head.split(b"\r\n")[:-1] or [b""]
    if not (mail.startswith(b"MAIL FROM:") and to and all(each.startswith(b"RCPT TO:") for each in to)):
        raise Damaged("it has no sender, or no recipient")
    return head


def _announced(bdat: str) -> int:
    size = bdat.removeprefix("BDAT ").removesuffix(" LAST")
    if not (size.isascii() and size.isdigit() and len(size) <= 12):
        raise Damaged("it does not say how long it is")
    return int(size)


def _users_here() -> int:
    """Return the number of user ids in this process's user namespace."""
    with open("/proc/self/uid_map") as lines:  # noqa: PTH123 - no path of ours
        return sum(int(line.split()[2]) for line in lines)
