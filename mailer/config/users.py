"""Read and write the users file, which holds the logins that are not in the configuration itself.

`mailer user` writes it. It contains hashes, never passwords. Only the receiver authenticates with it, and
reads it again when it changes:

    {"users": [{"name": "shop", "hash": "$scrypt$...", "allowedSenders": ["shop.example.com"]}]}
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec

from mailer.config.problem import ConfigError, Problem
from mailer.config.trust import Owners, Untrusted, for_the_group, hand_over, read_trusted, trusted_directory
from mailer.ground import durable
from mailer.mail.reply import printable

MAX_NAME = 255
_MAX_FILE = 16 * 2**20
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One login."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    hash: Annotated[str, msgspec.Meta(max_length=1024)]
    """The hash of a password (`$scrypt$...`) or of a token (`$sha256$...`)."""
    allowed_senders: tuple[str, ...] = ("*",)
    """Addresses, domains, or `*` that are allowed in MAIL FROM and the From field."""
    max_per_hour: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Messages; 0: no limit; None: the limits per sender of `rateLimits` apply."""
    max_per_day: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    users: tuple[User, ...] = ()


def read_users(path: Path, owners: Owners | None = None) -> dict[str, User]:
    """Read a users file; a missing file has no users.

    Args:
        path: the file.
        owners: the users whose file is trusted; None: root and the current user.

    Raises:
        ConfigError: it is not a users file (no value is quoted), or others can change it or read its hashes.
        OSError: it cannot be read.
    """
    where = printable(str(path))
    try:
        data, _ = read_trusted(path, _MAX_FILE + 1, owners=owners, secret=True)
    except FileNotFoundError:
        return {}
    except Untrusted as error:
        raise ConfigError((Problem(where, f"is not used: {error.strerror}"),)) from None
    if len(data) > _MAX_FILE:
        raise ConfigError((Problem(where, f"is larger than {_MAX_FILE} bytes"),))
    try:
        users = msgspec.json.decode(data, type=_File).users
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError((Problem(where, printable(str(error), 200)),)) from None
    found = {user.name: user for user in users}
    if len(found) < len(users):
        raise ConfigError((Problem(where, "names a user twice"),))
    return found


@contextmanager
def changing_users(
    path: Path, owners: Owners | None = None, group: int | None = None
) -> Iterator[dict[str, User]]:
    """Yield the users for changing, under a lock, and write them if the block ends without an exception.

    Args:
        path: the file.
        owners: as for `read_users`.
        group: the programs' group, which must be able to read a file that root writes; None: only the owner
            can.

    Raises:
        ConfigError: as `read_users`.
        OSError: the file cannot be written, or others may write to its directory; the old file stays. Or the
            new one is there, and a power cut may still bring the old one back.
    """
    with trusted_directory(path.parent, owners=owners) as directory:
        lock = _lock(f"{path.name}.lock", directory)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            users = read_users(path, owners)
            yield users
            _write(path.name, users, directory, group)
        finally:
            os.close(lock)


def _lock(name: str, directory: int) -> int:
    """Open the lock file; a new one gets the directory's owner."""
    try:
        fd = os.open(name, _NEW, 0o600, dir_fd=directory)
    except FileExistsError:
        return os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    # Only a file that was just created changes its owner: an existing name may be a link to any file.
    hand_over(fd, os.fstat(directory))
    return fd


def _write(name: str, users: dict[str, User], directory: int, group: int | None) -> None:
    """Replace the file atomically, keeping its owner and mode; if root owns it, the group can read it.

    A new file is readable by its owner only or, in a directory that root shares with a group, by that group.
    """
    data = msgspec.json.format(msgspec.json.encode(_File(tuple(users.values()))), indent=2) + b"\n"

    def prepare(fd: int) -> None:
        _take_over(name, fd, directory)
        _share(fd, group)

    durable.replace(name, data, directory, 0o600, prepare)
    durable.sync_directory(directory)


def _share(fd: int, group: int | None) -> None:
    """Let the programs' group read a file that only root could: the receiver needs it for logins."""
    state = os.fstat(fd)
    if group and os.geteuid() == 0 == state.st_uid and not state.st_mode & stat.S_IRGRP:
        os.fchown(fd, 0, group)
        os.fchmod(fd, 0o640)


def _take_over(name: str, fd: int, directory: int) -> None:
    try:
        old = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        beside = os.fstat(directory)
        hand_over(fd, beside)
        if for_the_group(beside):
            os.fchmod(fd, 0o640)
        return
    hand_over(fd, old)
    if stat.S_ISREG(old.st_mode):
        os.fchmod(fd, old.st_mode & 0o640)
