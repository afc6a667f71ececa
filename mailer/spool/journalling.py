"""Whether a power cut may leave half of a rename between two directories, by filesystem."""

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
"""Journalled, copy on write, or gone with the power anyway. What is not in here is taken for one without a
journal: that costs a link and an unlink instead of each rename."""


def renames_are_whole(directory: int) -> bool:
    """Tell whether a power cut leaves a file that was renamed its old name or its new one, never neither.

    Args:
        directory: an open descriptor on the filesystem.
    """
    kind = filesystem_of(directory).kind
    if kind in {"ext3", "ext4"}:
        return _journal_task(os.fstat(directory).st_dev) not in {"", "<none>"}
    return kind in _WHOLE


def lacks_journal(directory: int) -> bool:
    """Tell ext4 without a journal from everything else; if in doubt, it is something else."""
    ours = filesystem_of(directory).kind == "ext4"
    return ours and _journal_task(os.fstat(directory).st_dev) == "<none>"


def _journal_task(device: int) -> str:
    """Return what sysfs says of the thread that writes an ext4 journal; empty where it says nothing."""
    try:
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").readlink().name
        return Path(f"/sys/fs/ext4/{block}/journal_task").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
