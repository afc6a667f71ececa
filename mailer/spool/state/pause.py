"""The operator's pause: while `state/paused` exists, runners claim nothing. Mail is still accepted.

If the system cannot tell whether it exists (a bad sector, permissions), they claim nothing either.
"""

import contextlib
import os

import msgspec

from mailer.mail import clock
from mailer.mail.reply import printable
from mailer.spool.directory import Spool
from mailer.spool.layout import STATE
from mailer.spool.state import small_files

_NAME = "paused"


class Pause(msgspec.Struct, frozen=True):
    """The operator who paused the runners, and when; fields are empty if unknown."""

    at: str = ""
    by: str = ""
    reason: str = ""


def pause(spool: Spool, now: float, by: str, reason: str = "") -> bool:
    """Make runners claim nothing from now on; messages that they hold are finished.

    Returns:
        Whether they were running before; a pause keeps its first author.

    Raises:
        OSError: it could not be written; nothing is paused.
    """
    if _is_there(spool):
        return False
    small_files.replace(spool, _NAME, msgspec.json.encode(Pause(clock.rfc3339(now), by, reason)) + b"\n")
    spool.sync_directory(STATE)
    return True


def resume(spool: Spool) -> bool:
    """Let runners claim again; return whether they were paused.

    Raises:
        OSError: they are still paused.
    """
    try:
        os.unlink(f"{STATE}/{_NAME}", dir_fd=spool.root)
    except FileNotFoundError:
        return False
    spool.sync_directory(STATE)
    return True


def is_paused(spool: Spool) -> bool:
    """Return whether runners are paused, with one system call."""
    try:
        return _is_there(spool)
    except OSError:
        return True


def _is_there(spool: Spool) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.stat(f"{STATE}/{_NAME}", dir_fd=spool.root, follow_symlinks=False)
        return True
    return False


def describe(paused: Pause) -> str:
    """Say in a sentence that the runners are paused, by which operator and since when."""
    by = f" by {paused.by}" if paused.by else ""
    since = f" since {paused.at}" if paused.at else ""
    why = f" ({paused.reason})" if paused.reason else ""
    return printable(f"paused{by}{since}{why}: nothing is sent until `mailer resume`", 500)


def read_pause(spool: Spool) -> Pause | None:
    """Return the pause; None if runners are not paused. An empty file made by hand pauses, too."""
    try:
        if not _is_there(spool):
            return None
        return msgspec.json.decode(small_files.read_if_any(spool, _NAME) or b"", type=Pause)
    except OSError as error:
        return Pause(reason=f"{spool.path / STATE / _NAME} cannot be read: {error.strerror}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Pause()
