"""The target's record of a handover: a file in `once/` that the handover names.

It says that the message is durable in this spool. It is durable before the source hears so, and answers for a
message that has left this spool since. It is written and removed under the message's lock.
"""

import errno
from contextlib import suppress

from mailer.spool import idempotency
from mailer.spool.handover.wire import Key
from mailer.spool.layout import ONCE, Spool


def has(spool: Spool, move: str) -> bool:
    """Return whether a handover has brought its message here; raises OSError."""
    return idempotency.read(spool, idempotency.name_of_move(move)).accepted


def keep(spool: Spool, id: str, move: str, now: float, keys: tuple[Key, ...] = ()) -> None:
    """Record a message that is durable here, and its idempotency keys.

    The file's name is durable when `once/` was synced.

    Raises:
        OSError: it cannot be recorded, or another program is doing so.
    """
    for key in keys:
        with suppress(idempotency.InUse):
            idempotency.adopt(spool, key.name, id, key.content, at=now)
    try:
        idempotency.adopt(spool, idempotency.name_of_move(move), id, "", at=now)
    except idempotency.InUse as error:
        raise BlockingIOError(errno.EAGAIN, "another program is recording it") from error


def drop(spool: Spool, move: str) -> None:
    """Forget, durably, a message that is about to be removed before the source gave it up; raises OSError.

    Otherwise the source would take it for handed over.
    """
    if spool.has_directory(ONCE):
        idempotency.forget(spool, idempotency.name_of_move(move))
        spool.sync_directory(ONCE)
