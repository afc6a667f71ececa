"""Whether a power cut may leave a rename between two directories half done, by filesystem."""

import os
from pathlib import Path

from mailer.spool.filesystems import filesystem_of

_WHOLE = {
    "xfs",
    "btrfs",
    "zfs",
    "bcachefs",
    "jfs",
    "f2fs",
    "reiserfs",
    "reiser4",
    "nilfs2",
    "ubifs",
    "tmpfs",
    "ramfs",
}
"""Filesystems that are journalled, copy-on-write, or lost with the power anyway. Any other is treated as one
without a journal, which costs a link and an unlink instead of each rename."""


def renames_are_whole(directory: int) -> bool:
    """Return whether a renamed file has its old name or its new one after a power cut, but never neither.

    Args:
        directory: an open descriptor on the filesystem.
    """
    kind = filesystem_of(directory).kind
    if kind in {"ext3", "ext4"}:
        return _journal_task(os.fstat(directory).st_dev) not in {"", "<none>"}
    return kind in _WHOLE


def lacks_journal(directory: int) -> bool:
    """Return whether this is ext4 without a journal; False in doubt."""
    ours = filesystem_of(directory).kind == "ext4"
    return ours and _journal_task(os.fstat(directory).st_dev) == "<none>"


def _journal_task(device: int) -> str:
    """Return what sysfs says about the thread that writes an ext4 journal; empty if it says nothing."""
    try:
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").readlink().name
        return Path(f"/sys/fs/ext4/{block}/journal_task").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
