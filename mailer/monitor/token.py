"""The token of a monitor that the configuration gives none: made at its first start, kept in the spool.

Whoever may read the spool may read it: the user that the programs run as, and root. Other users of this host
reach the port, too, and must not read mail there or delete it.
"""

import os
import secrets
from contextlib import suppress

from mailer.config.secrets import Secret
from mailer.spool.layout import STATE, Spool
from mailer.spool.state import small_files

_NAME = "monitor-token"
_LEAST = 32
"""Characters; a shorter file is one whose writer was killed."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def known(spool: Spool) -> str:
    """Return the token that a monitor has made; empty: none has."""
    found = (small_files.read(spool, _NAME) or b"").decode("ascii", "replace").strip()
    return found if len(found) >= _LEAST and found.isascii() else ""


def token_for(spool: Spool, configured: Secret) -> Secret:
    """Return what the monitor must be shown: `adminToken`, or one of its own, made if there is none yet.

    Raises:
        OSError: it cannot be written.
    """
    if not configured.empty:
        return configured
    if not known(spool):
        _make(spool)
    return Secret(known(spool), key="the monitor's token")


def _make(spool: Spool) -> None:
    made = secrets.token_urlsafe(32).encode() + b"\n"
    # Of two monitors that start at once both use what the first one wrote.
    with suppress(FileExistsError), spool.directory(STATE) as directory:
        fd = os.open(_NAME, _NEW, 0o600, dir_fd=directory)
        try:
            os.write(fd, made)
        finally:
            os.close(fd)
    if not known(spool):
        small_files.replace(spool, _NAME, made)
