"""Which directory is a spool, and which may become one; in any other nothing is made, changed or tightened.

A spool has a mark, a file that is made before anything else in it. Those of earlier versions have none: they
are known by directories that stand together nowhere else.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

MARK = ".mailer-spool"
_TEXT = (
    b"This directory is a spool of mailer, which makes, tightens and removes things in it. See README.md.\n"
)
_TOGETHER = ("new", "cur", "tmp", "retry", "failed")
"""A Maildir has the first three."""
_HARMLESS = {"README.md", ".gitignore", "lost+found"}
"""What else may be in a directory that becomes a spool: a clone of our source, or a filesystem of its own."""
_README = b"# What you see in here\n"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Standing(StrEnum):
    """What a directory is to us."""

    OURS = "a spool"
    FREE = "empty, and may become a spool"
    FOREIGN = "something else"


def standing(root: int) -> Standing:
    """Look at a directory by its descriptor; nothing is changed."""
    if _is(root, MARK, stat.S_ISREG) or all(_is(root, name, stat.S_ISDIR) for name in _TOGETHER):
        return Standing.OURS
    # Such as /tmp, even when there is nothing in it.
    if os.fstat(root).st_mode & stat.S_ISVTX:
        return Standing.FOREIGN
    with os.scandir(root) as entries:
        foreign = any(entry.name not in _HARMLESS for entry in entries)
    if not foreign and (not _is(root, "README.md", stat.S_ISREG) or _is_our_readme(root)):
        return Standing.FREE
    # Another program may have begun to make it since the first look.
    return Standing.OURS if _is(root, MARK, stat.S_ISREG) else Standing.FOREIGN


def mark(root: int) -> None:
    """Mark a directory as a spool; raises OSError."""
    with suppress(FileExistsError):
        fd = os.open(MARK, _NEW, 0o600, dir_fd=root)
        try:
            os.write(fd, _TEXT)
        finally:
            os.close(fd)


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
