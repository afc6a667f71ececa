"""The spool's identity: a random word by which a runner recognizes its own receiver.

Host names are not enough: cloned machines share them, and one receiver may have several. The receiver gives
the word in its EHLO reply (where RFC 5321 4.1.1.1 has room for a greeting). So a provider that leads back to
us is detected before a message or a password is sent to it. The word is not secret. A longer loop, through
other hosts, ends at `header.MAX_RECEIVED`: mail that comes back once may have been forwarded by its
recipient.
"""

import secrets
from contextlib import suppress

from mailer.spool.directory import Spool
from mailer.spool.state import small_files

_NAME = "identity"
_DIGITS = 16


def known(spool: Spool) -> str:
    """Return the word; empty if no receiver has made one yet."""
    found = (small_files.read(spool, _NAME) or b"").decode("ascii", "replace").strip()
    return found if len(found) == _DIGITS and found.isalnum() else ""


def made(spool: Spool) -> str:
    """Return the word, and make it if there is none; empty if it cannot be stored (a full disk, say)."""
    if not known(spool):
        with suppress(OSError):
            small_files.replace(spool, _NAME, secrets.token_hex(_DIGITS // 2).encode() + b"\n")
    return known(spool)
