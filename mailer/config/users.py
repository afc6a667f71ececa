"""The users file: who may log in beside the configuration's own login. `mailer user` writes it.

It holds hashes, never passwords, and no program of ours needs it but the receiver, which reads it again when
it changes:

    {"users": [{"name": "shop", "hash": "$scrypt$...", "allowedSenders": ["shop.example.com"]}]}
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec

from mailer.config.problem import ConfigError, Problem
from mailer.config.trust import Owners, Untrusted, read_trusted
from mailer.mail.reply import printable

MAX_NAME = 255
_MAX_FILE = 16 * 2**20


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One user."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    hash: Annotated[str, msgspec.Meta(max_length=1024)]
    """Of a password (`$scrypt$...`) or of a token (`$sha256$...`)."""
    allowed_senders: tuple[str, ...] = ("*",)
    """Addresses, domains, or `*`: who may stand in MAIL FROM and in the From field."""
    max_per_hour: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Messages; 0: no limit; none: `rateLimits` counts this user by sender, as everybody."""
    max_per_day: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    users: tuple[User, ...] = ()


def read_users(path: Path, owners: Owners | None = None) -> dict[str, User]:
    """Read a users file; one that is not there holds nobody.

    Args:
        path: where it is.
        owners: whose file is trusted; None: root's and ours.

    Raises:
        ConfigError: it is no such file (no value is repeated), or others can change it or read its hashes.
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
def changing_users(path: Path) -> Iterator[dict[str, User]]:
    """Give the users to change, and write them when the block ends well; one program at a time.

    Raises:
        ConfigError: as `read_users`.
        OSError: the file cannot be written; the old one stays.
    """
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        users = read_users(path)
        yield users
        _write(path, users)
    finally:
        os.close(lock)


def _write(path: Path, users: dict[str, User]) -> None:
    """Replace the file whole, with the owner and mode of the one before; new ones are 0600."""
    data = msgspec.json.format(msgspec.json.encode(_File(tuple(users.values()))), indent=2) + b"\n"
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            _take_over(path, fd)
            file.write(data)
            file.flush()
            os.fsync(fd)
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _take_over(path: Path, fd: int) -> None:
    """Root's `mailer user add` must leave the file readable for the receiver, who is not root."""
    try:
        old = path.stat()
    except FileNotFoundError:
        old = path.parent.stat()
        if os.geteuid() == 0:
            os.fchown(fd, old.st_uid, old.st_gid)
        return
    if os.geteuid() == 0:
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, old.st_mode & 0o640)
