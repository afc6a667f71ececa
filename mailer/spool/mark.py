"""Recognize a spool directory, or one that may become a spool; nothing is changed in any other directory.

A spool has a mark, a file that is made before everything else in it. Spools of earlier versions have no mark;
they are recognized by a set of directories that occur together nowhere else.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

from mailer.mail.lazy_pattern import compile_late

MARK = ".mailer-spool"
_TEXT = (
    b"This directory is a spool of mailer, which makes, tightens and removes things in it. See README.md.\n"
)
_TOGETHER = ("new", "cur", "tmp", "retry", "failed")
"""Directories that identify a spool without a mark; a Maildir has the first three."""
_HARMLESS = {"README.md", ".gitignore", "lost+found"}
"""Names that do not keep a directory from becoming a spool: from a clone of our source, or a mount point."""
_README = b"# What you see in here\n"
_IDENTITY = compile_late(rb"^Spool: ([0-9a-f]{32})$", re.MULTILINE)
_LONGEST = 4096
_NEW = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Standing(StrEnum):
    """How a directory relates to mailer."""

    OURS = "a spool"
    FREE = "empty, and may become a spool"
    FOREIGN = "something else"


def standing(root: int) -> Standing:
    """Classify a directory by its descriptor; nothing is changed."""
    if _is(root, MARK, stat.S_ISREG) or all(_is(root, name, stat.S_ISDIR) for name in _TOGETHER):
        return Standing.OURS
    # A sticky directory, such as /tmp, is never a spool, even if it is empty.
    if os.fstat(root).st_mode & stat.S_ISVTX:
        return Standing.FOREIGN
    with os.scandir(root) as entries:
        foreign = any(entry.name not in _HARMLESS for entry in entries)
    if not foreign and (not _is(root, "README.md", stat.S_ISREG) or _is_our_readme(root)):
        return Standing.FREE
    # Another program may have started to make a spool here since the first check.
    return Standing.OURS if _is(root, MARK, stat.S_ISREG) else Standing.FOREIGN


def mark(root: int) -> None:
    """Mark a directory as a spool; raises OSError."""
    with suppress(FileExistsError):
        fd = os.open(MARK, _NEW, 0o600, dir_fd=root)
        try:
            os.write(fd, _TEXT)
        finally:
            os.close(fd)


def identity(root: int) -> str:
    """Return a spool's random word, which tells it from others; the first call adds it to the mark, durably.

    The word stays the same when the spool is mounted elsewhere or its host gets another name. Raises OSError.
    """
    fd = os.open(
        MARK, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        text = os.pread(fd, _LONGEST, 0)
        if not (found := _IDENTITY.search(text)):
            # On a line of its own, even after a torn one.
            os.write(
                fd, b"\n" * (text[-1:] not in {b"", b"\n"}) + b"Spool: %s\n" % os.urandom(16).hex().encode()
            )
            found = _IDENTITY.search(os.pread(fd, _LONGEST, 0))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.fsync(root)
    if not found:
        raise OSError(errno.EIO, "it cannot be given a word that names this spool", MARK)
    return found[1].decode()


def _is(root: int, name: str, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_our_readme(root: int) -> bool:
    try:
        fd = os.open("README.md", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except OSError:
        return False
    try:
        return os.read(fd, len(_README)) == _README
    finally:
        os.close(fd)
