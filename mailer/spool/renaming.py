"""Rename a message's file into another directory such that a power cut never leaves it without a name.

A filesystem with a journal makes a rename durable as a whole. Without one the kernel writes the two
directories in any order; if it writes the old one first and power fails then, the file has no name (fsck puts
it into `lost+found`). On such a filesystem the file is linked under its new name, and has both until the new
one is durable.
"""

import errno
import os

from mailer.spool.directory import Spool
from mailer.spool.syscalls import rename_exclusive

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def rename_whole(spool: Spool, source: str, target: str) -> bool:
    """Rename a file that must survive a power cut; this is not durable yet.

    Args:
        spool: the spool that the paths are relative to.
        source: the file's durable name; the caller holds its lock.
        target: a name in another directory.

    Returns:
        Whether it still has its old name, which the caller removes once the new one is durable.

    Raises:
        FileExistsError: `target` exists; nothing changed.
        OSError: as rename(2) or link(2); nothing changed.
    """
    if not spool.renames_are_whole:
        try:
            os.link(source, target, src_dir_fd=spool.root, dst_dir_fd=spool.root, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            return True
    rename_exclusive(spool.root, source, target)
    return False
