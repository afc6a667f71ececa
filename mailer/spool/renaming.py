"""Giving a message's file a name in another directory, such that no power cut leaves it without one.

A journal makes a rename durable as a whole. Without one the kernel writes the two directories whenever it
likes; if the old one is first, and power fails then, the file has no name (fsck puts it into `lost+found`).
There a file is linked under its new name, and has both until the new one is durable.
"""

import errno
import os

from mailer.spool.layout import Spool
from mailer.spool.syscalls import rename_exclusive

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def rename_whole(spool: Spool, source: str, target: str) -> bool:
    """Rename a file that is to outlive a power cut; not yet durable.

    Args:
        spool: what the paths are relative to.
        source: the file's name, durable; the caller has its lock.
        target: one in another directory.

    Returns:
        Whether it has its old name still. Then remove that once the new one is durable.

    Raises:
        FileExistsError: there is a `target`; nothing changed.
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
