"""The spool's identity: a random word, by which a runner recognizes its own receiver.

Names do not tell: cloned machines share theirs, and one receiver has several. The receiver says the word in
its EHLO reply (where RFC 5321 4.1.1.1 has room for a greeting), and so a provider that leads back to us is
found out before a message, or a password, goes there. It is not secret. A longer circle, through others, ends
at `header.MAX_RECEIVED`: mail that comes back once may have been sent on by its recipient.
"""

import secrets
from contextlib import suppress

from mailer.spool.layout import Spool
from mailer.spool.state import small_files

_NAME = "identity"
_DIGITS = 16


def known(spool: Spool) -> str:
    """Return the word; empty: no receiver has made one yet."""
    found = (small_files.read(spool, _NAME) or b"").decode("ascii", "replace").strip()
    return found if len(found) == _DIGITS and found.isalnum() else ""


def made(spool: Spool) -> str:
    """Return the word, which is made if there is none; empty: it cannot be kept (a full disk, say)."""
    if not known(spool):
        with suppress(OSError):
            small_files.replace(spool, _NAME, secrets.token_hex(_DIGITS // 2).encode() + b"\n")
    return known(spool)
