"""The monitor's token if `adminToken` is empty: generated at the first start and stored in the spool.

The users that can read the spool can read the token: root, and the user that the programs run as. Other users
of this host can connect to the port, but must not read or delete mail.
"""

import os
import secrets
from contextlib import suppress

from mailer.config.secrets import Secret
from mailer.spool.directory import Spool
from mailer.spool.layout import STATE
from mailer.spool.state import small_files

_NAME = "monitor-token"
_MIN_LENGTH = 32
"""Characters; a shorter file is incomplete, because its writer was killed."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def known(spool: Spool) -> str:
    """Return the token that a monitor has generated; empty: there is none yet."""
    found = (small_files.read(spool, _NAME) or b"").decode("ascii", "replace").strip()
    return found if len(found) >= _MIN_LENGTH and found.isascii() else ""


def token_for(spool: Spool, configured: Secret) -> Secret:
    """Return the token that requests must present: `adminToken`, or a generated one.

    Raises:
        OSError: a new token cannot be written.
    """
    if not configured.empty:
        return configured
    if not known(spool):
        _make(spool)
    return Secret(known(spool), key="the monitor's token")


def _make(spool: Spool) -> None:
    made = secrets.token_urlsafe(32).encode() + b"\n"
    # If two monitors start at the same time, both use the token that the first one wrote.
    with suppress(FileExistsError), spool.directory(STATE) as directory:
        fd = os.open(_NAME, _NEW, 0o600, dir_fd=directory)
        try:
            os.write(fd, made)
        finally:
            os.close(fd)
    if not known(spool):
        small_files.replace(spool, _NAME, made)
