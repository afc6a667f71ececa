"""Check that a directory may be used as the spool of this user, and make what is missing in it.

Other directories are recognized by `mark`, and nothing in them is changed.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from mailer.spool.filesystems import INSTEAD, filesystem_of, refusal
from mailer.spool.layout import (
    DIRECTORIES,
    DIRECTORY_MODE,
    DROP,
    HOSTS,
    LOG,
    ONCE,
    SUPPRESSED,
    TRACES,
)
from mailer.spool.mark import MARK, Standing, mark, standing

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SpoolError(OSError):
    """The spool directory cannot be used; the text says why and what to do."""


class NotMade(SpoolError):
    """The spool, or a part of it, does not exist yet; `mailer serve` and `mailer-send` will make it."""


def prepare(path: Path, root: int, *, create: bool) -> None:
    """Check an open directory, and make or tighten what is needed.

    Args:
        path: of the directory, for error texts.
        root: its descriptor.
        create: make it a spool if it is empty; make missing parts of a spool, and tighten modes to 0700.
            Without it, nothing is changed.

    Raises:
        SpoolError: it is not a spool, another user's, on a network filesystem, or cannot be used; nothing was
            changed.
        OSError: something cannot be made.
    """
    state = os.fstat(root)
    if state.st_uid != os.geteuid():
        raise SpoolError(
            None,
            f"the spool {path} belongs to user {state.st_uid}, and this runs as {os.geteuid()}: "
            "run as its owner, or give it to this user with chown -R",
        )
    if not os.access(".", os.X_OK, dir_fd=root, effective_ids=True):
        if not create:
            raise _unusable(path, state)
        os.fchmod(root, DIRECTORY_MODE)
    check_filesystem(path, root, of_hosts=is_of_hosts(root))
    for name in (ONCE, DROP, SUPPRESSED):
        with suppress(FileNotFoundError):
            _check_directory(path, root, name)
    found = standing(root)
    if found is Standing.FOREIGN:
        raise SpoolError(None, f"{path} {no_spool(found, path)}")
    if found is Standing.FREE and not create:
        raise NotMade(None, f"{path} {no_spool(found, path)}")
    if not create:
        _check_complete(path, root)
        return
    if found is Standing.OURS:
        # A spool of an earlier version, or a full disk: the directory names identify it without the mark.
        with suppress(OSError):
            mark(root)
    else:
        mark(root)
    _complete(path, root)


def check_filesystem(path: Path, root: int, *, of_hosts: bool) -> None:
    """Refuse an open directory on a filesystem that a spool may not be on; the rest is as for `refusal`.

    Raises:
        SpoolError: the text says why, and what to do.
    """
    kind = filesystem_of(root).kind
    if why := refusal(kind, of_hosts=of_hosts):
        raise SpoolError(None, f"{path} is on {kind}, {why}: {INSTEAD}")


def _complete(path: Path, root: int) -> None:
    """Make the directories that are missing, durably; raises OSError."""
    missing = [name for name in DIRECTORIES if not _tighten(path, root, name)]
    if missing:
        # After a power cut that kept directories but not the mark, the directory would be neither empty nor
        # recognizable as a spool.
        os.fsync(root)
    for name in missing:
        make_directory(root, name)
        _tighten(path, root, name)
    let_others_through(root)
    if missing:
        os.fsync(root)
    with suppress(OSError):
        _take_over_traces(root)


def make_directory(root: int, name: str) -> bool:
    """Make a directory of mode 0700 in the spool; return False if it existed."""
    try:
        os.mkdir(name, DIRECTORY_MODE, dir_fd=root)
    except FileExistsError:
        return False
    return True


def right_mode(root: int) -> int:
    """Return the mode that the spool directory should have: 0711 with an open `drop/` in it, or else 0700.

    With 0711, other users can pass through it to `drop/`, but not list the names in it.
    """
    try:
        found = os.stat(DROP, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return DIRECTORY_MODE
    is_open = stat.S_ISDIR(found.st_mode) and found.st_mode & 0o077
    return DIRECTORY_MODE | 0o011 if is_open else DIRECTORY_MODE


def let_others_through(root: int) -> None:
    """Give the spool directory its `right_mode`; raises OSError."""
    if stat.S_IMODE(os.fstat(root).st_mode) != (mode := right_mode(root)):
        os.fchmod(root, mode)


def _check_complete(path: Path, root: int) -> None:
    for name in DIRECTORIES:
        try:
            _check_directory(path, root, name)
        except FileNotFoundError:
            raise NotMade(
                None, f"{path / name} is missing: the next start of mailer serve or mailer-send makes it"
            ) from None


def _check_directory(path: Path, root: int, name: str) -> os.stat_result:
    """Stat a directory, which must be a real one that we own; raises FileNotFoundError, SpoolError."""
    found = os.stat(name, dir_fd=root, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolError(None, f"{path / name} is not a directory: move it away")
    if found.st_uid != os.geteuid():
        raise SpoolError(None, f"{path / name} {owned_by_another(path, found)}")
    return found


def _tighten(path: Path, root: int, name: str) -> bool:
    """Make sure that a directory has mode 0700; return whether it exists."""
    try:
        found = _check_directory(path, root, name)
    except FileNotFoundError:
        return False
    if stat.S_IMODE(found.st_mode) != DIRECTORY_MODE:
        try:
            directory = os.open(name, _DIRECTORY, dir_fd=root)
        except PermissionError:
            raise _unusable(path / name, found) from None
        try:
            os.fchmod(directory, DIRECTORY_MODE)
        finally:
            os.close(directory)
    return True


def _take_over_traces(root: int) -> None:
    """Move the traces of an earlier version out of `log/`, where they are in the way of `cat log/*`.

    Raises:
        OSError: there are none (nothing was made), or not all could be moved.
    """
    old = os.open(f"{LOG}/{TRACES}", _DIRECTORY, dir_fd=root)
    try:
        make_directory(root, TRACES)
        with os.scandir(old) as entries:
            for name in [entry.name for entry in entries]:
                os.rename(f"{LOG}/{TRACES}/{name}", f"{TRACES}/{name}", src_dir_fd=root, dst_dir_fd=root)
    finally:
        os.close(old)
    os.rmdir(f"{LOG}/{TRACES}", dir_fd=root)


def is_of_hosts(root: int) -> bool:
    """Return whether an open spool is in a directory that several hosts share, each with its own spool."""
    try:
        return stat.S_ISDIR(os.stat(f"../{HOSTS}", dir_fd=root, follow_symlinks=False).st_mode)
    except OSError:
        return False


def no_spool(found: Standing, path: Path) -> str:
    """Return why a directory is not used as a spool, and what to do; the caller puts its name before this."""
    if found is Standing.FREE:
        return "is not a spool yet: mailer serve, mailer up and mailer-send make it one when they start"
    from shlex import quote  # noqa: PLC0415 - for a message

    return (
        "is not a spool and contains other files, so nothing in it is changed: set spoolDir to a directory "
        f"that is empty or does not exist yet. If it is a spool, type: touch {quote(str(path / MARK))}"
    )


def owned_by_another(spool: Path, state: os.stat_result) -> str:
    """Return which user owns a directory of the spool, and the command that makes it ours.

    It is not moved away, because it may contain mail.
    """
    from shlex import quote  # noqa: PLC0415 - for a message

    return (
        f"belongs to user {state.st_uid}, and this runs as {os.geteuid()}: "
        f"type, as root: chown -R {os.geteuid()} {quote(str(spool))}"
    )


def _unusable(path: Path, state: os.stat_result) -> SpoolError:
    from shlex import quote  # noqa: PLC0415 - for a message

    what = f"{path} has mode {stat.S_IMODE(state.st_mode):04o}, and its owner cannot use it"
    return SpoolError(None, f"{what}: type: chmod {DIRECTORY_MODE:04o} {quote(str(path))}")
