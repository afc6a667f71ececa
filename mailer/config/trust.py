"""Open configuration and secret files only if no other user could change them.

A user with write permission for a directory can replace what is in it, so every directory of the path is
checked as well, starting at the root. Each is opened once, relative to the previous one and without following
links, and the checks use the descriptor, so no part of the path can be swapped between check and use.

A world-writable directory with the sticky bit, such as /tmp, passes: only the owner of an entry in it can
rename or remove that entry (unlink(2)), and the entry's owner is checked next. Setgid programs of a group
without members are not considered.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailer.mail.reply import printable

Owners = frozenset[int]
"""User ids whose files are trusted."""

_PASS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PEEK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT = Path("/")
_MAX_LINKS = 40
"""Symbolic links in one path; the kernel's own limit (path_resolution(7))."""


class Untrusted(PermissionError):
    """Another user could change a file, or read a secret; `strerror` names them and the command to type."""

    def __init__(self, path: Path, why: str) -> None:
        """Args: path: the file to open; why: a sentence that names the file or directory at fault."""
        super().__init__(errno.EPERM, printable(why), str(path))


def owners_of(spool: Path) -> Owners:
    """Return the users whose files are trusted: root, the current user, and, for root, the spool's owner.

    Programs that root starts switch to the spool's owner, who could make them send anything anyway. Do not
    use this set for the configuration itself or the programs that it names, which root reads and runs.
    """
    owners = ours()
    if os.geteuid() != 0:
        return owners
    try:
        return owners | {spool.stat().st_uid}
    except OSError:
        return owners


def programs_group(spool: Path, configuration: Path) -> int | None:
    """Return the group of the user that the programs run as; None: it is root's, or unknown.

    It is the group of the spool or, if there is no spool yet, of the configuration.
    """
    for path in (spool, configuration):
        try:
            state = path.stat()
        except OSError:
            continue
        if state.st_gid:
            return state.st_gid
    return None


def ours() -> Owners:
    """Return the user ids of root and the current user."""
    return frozenset({0, os.geteuid()})


def open_trusted(
    path: Path, flags: int = os.O_RDONLY, *, owners: Owners | None = None, secret: bool = False
) -> int:
    """Open a regular file that only root and `owners` can change.

    Args:
        path: the file; symbolic links are followed if root or the current user owns them.
        flags: for open(2); O_PATH for a file that is to be executed.
        owners: see `owners_of`; None: root and the current user.
        secret: also refuse a file that every user of the host can read.

    Returns:
        A descriptor, which the caller must close.

    Raises:
        Untrusted: another user could change the file, or read the secret.
        OSError: as open(2); EINVAL if it is not a regular file.
    """
    found, at = _walk(path, flags, owners or ours())
    try:
        _check_file(os.fstat(found), at, path, secret=secret)
    except BaseException:
        os.close(found)
        raise
    return found


def why_untrusted(
    path: Path, flags: int = os.O_RDONLY, *, owners: Owners | None = None, secret: bool = False
) -> str:
    """Return why `open_trusted` would refuse a file; empty if it would not, or could not open it at all."""
    try:
        os.close(open_trusted(path, flags, owners=owners, secret=secret))
    except Untrusted as error:
        return str(error.strerror)
    except OSError:
        return ""  # The program that opens it reports what is wrong with it.
    return ""


def read_trusted(
    path: Path, limit: int, *, owners: Owners | None = None, secret: bool = False
) -> tuple[bytes, os.stat_result]:
    """Return at most `limit` bytes of a file, and its stat result; raises like `open_trusted`."""
    with os.fdopen(open_trusted(path, owners=owners, secret=secret), "rb") as file:
        return file.read(limit), os.fstat(file.fileno())


@contextmanager
def trusted_directory(path: Path, *, owners: Owners | None = None) -> Iterator[int]:
    """Open a directory that only root and `owners` can write to; yield an O_PATH descriptor.

    Args:
        path: the directory.
        owners: see `owners_of`; None: root and the current user.

    Raises:
        Untrusted: another user could write to it, or replace it.
        OSError: as open(2).
    """
    found, _ = _walk(path, _PASS, owners or ours())
    try:
        yield found
    finally:
        os.close(found)


def hand_over(fd: int, like: os.stat_result) -> None:
    """If we are root, give a new file the owner and group of another.

    The programs do not run as root, and must be able to read the files that root creates for them.
    """
    if os.geteuid() == 0:
        os.fchown(fd, like.st_uid, like.st_gid)


def for_the_group(like: os.stat_result) -> bool:
    """Return whether root shares files that it creates next to this one with its group (/etc/mailer)."""
    return os.geteuid() == 0 == like.st_uid and like.st_gid != os.getegid()


def _check_file(state: os.stat_result, at: Path, path: Path, *, secret: bool) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    if secret and others_can_read(state.st_mode):
        raise Untrusted(path, f"every user of this host can read {at}; type: {chmod(at)}")


def _walk(path: Path, flags: int, owners: Owners) -> tuple[int, Path]:
    """Open a path and check every component; return the descriptor, and the path with links resolved."""
    ahead = [*reversed(path.absolute().parts[1:])]
    where, links = _ROOT, 0
    at = os.open(_ROOT, _PASS)
    try:
        _look(at, _ROOT, path, owners)
        while ahead:
            name = ahead.pop()
            # `where` has no links, so its parent is the parent of the directory.
            there = where.parent if name == ".." else where / name
            found = _step(at, name, flags if not ahead else _PASS)
            try:
                link = _look(found, there, path, owners)
            except BaseException:
                os.close(found)
                raise
            if link is None:
                found, at, where = at, found, there
            elif link.startswith("/"):
                os.close(found)
                found, at, where = at, os.open(_ROOT, _PASS), _ROOT
            os.close(found)
            if link is not None:
                links += 1
                _count(links, path)
                ahead += reversed([part for part in link.split("/") if part not in {"", "."}])
    except BaseException:
        os.close(at)
        raise
    return at, where


def _count(links: int, path: Path) -> None:
    if links > _MAX_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _step(at: int, name: str, flags: int) -> int:
    """Open one component of a path; for a symbolic link, open the link itself."""
    try:
        # O_NONBLOCK, since opening a FIFO would block until it has a writer.
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
            raise
        found = os.open(name, _PEEK, dir_fd=at)
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            os.close(found)
            raise
        return found


def _look(found: int, there: Path, path: Path, owners: Owners) -> str | None:
    """Raise Untrusted if others own this component or may write to it; return the target of a link."""
    state = os.fstat(found)
    # A link that the spool's owner controls could lead root anywhere.
    if state.st_uid not in (ours() if stat.S_ISLNK(state.st_mode) else owners):
        raise Untrusted(
            path,
            f"{there} belongs to user {_user(state.st_uid)}, who could change it; type, as root: "
            f"chown {_quoted(_user(os.geteuid()))} {_quoted(there)}",
        )
    if stat.S_ISLNK(state.st_mode):
        return os.readlink("", dir_fd=found)
    if stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX:
        return None
    if state.st_mode & stat.S_IWOTH:
        bits = "go" if state.st_mode & stat.S_IWGRP else "o"
        raise Untrusted(
            path, f"every user of this host may write to {there}; type: chmod {bits}-w {_quoted(there)}"
        )
    if state.st_mode & stat.S_IWGRP and not _alone(found, state, owners):
        raise Untrusted(path, f"its group may write to {there}; type: chmod g-w {_quoted(there)}")
    return None


def _alone(found: int, state: os.stat_result, owners: Owners) -> bool:
    """Return whether the group has no members except `owners`: many systems give each user a group."""
    # Imported here because the files are rarely group-writable.
    import grp  # noqa: PLC0415
    import pwd  # noqa: PLC0415

    try:
        # With an ACL the group bits are its mask, and it may grant access to other users (acl(5)).
        os.getxattr(f"/proc/self/fd/{found}", "system.posix_acl_access")
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.ENOTSUP, errno.ENOENT}:
            return False
    else:
        return False
    try:
        named = grp.getgrgid(state.st_gid).gr_mem
    except KeyError:
        named = []
    members = {account.pw_uid for account in pwd.getpwall() if account.pw_gid == state.st_gid}
    try:
        members |= {pwd.getpwnam(name).pw_uid for name in named}
    except KeyError:
        return False
    return members <= owners


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415 - for a message

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _quoted(word: object) -> str:
    import shlex  # noqa: PLC0415 - for a message

    return shlex.quote(str(word))


def others_can_read(mode: int) -> bool:
    """Return whether every user can read; a group may (services share files as root:mailer 0640)."""
    return bool(mode & stat.S_IROTH)


def chmod(path: Path) -> str:
    """Return the shell command that denies other users access to the file."""
    import shlex  # noqa: PLC0415 - only for a message

    return f"chmod 0640 {shlex.quote(str(path))}"
