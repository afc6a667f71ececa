"""Queue mail once however often it is submitted, under its idempotency key, or as a handover.

The receiver that has a message under a key locks the key's file (`key_file`), as it locks the message's, and
works in this order:

1. `begun` names the message's id, durably, before the message is renamed into `new/`;
2. the message is durable in `new/`;
3. `accepted` is written and made durable, while the message's lock is still held;
4. the client gets its 250, and both locks are given up.

If the receiver dies between 1 and 3, the file says `begun`, and the message was accepted if and only if it is
in the spool. The runner that claims it does step 3 for it (`confirm`) before it tries the message. Before the
key may name another message, the absence of this one is made durable (`KeyFile.settle`).
"""

import errno
import os
from contextlib import suppress

from mailer.mail import clock
from mailer.spool.directory import Spool
from mailer.spool.key_file import ABSENT, InUse, KeyFile, Known, is_name, name_of_move, open_key, read_key
from mailer.spool.layout import ONCE
from mailer.spool.locked_message import LockedMessage


def read(spool: Spool, name: str) -> Known:
    """Return what a key's file says, without its lock; raises OSError unless there is none."""
    if not is_name(name):
        return Known()
    try:
        fd = open_key(spool, name, create=False)
    except OSError as error:
        if error.errno in ABSENT:
            return Known()
        raise
    try:
        return read_key(fd)
    finally:
        os.close(fd)


def adopt(spool: Spool, name: str, id: str, content: str, *, at: float) -> None:
    """Remember a message that is durable in the spool, unless its key names another one.

    The file's name is durable when `once/` was synced.

    Raises:
        InUse: a session is receiving a message under this key.
        OSError: it cannot be recorded.
    """
    if not is_name(name):
        return
    file = KeyFile.lock(spool, name)
    try:
        if not file.known.id:
            file.begin(id, content, at=at)
        if file.known.id == id and file.known.accepted:
            file.sync()  # Perhaps its writer died before it did so.
        elif file.known.id == id:
            file.accept(id, at=clock.rfc3339(at))
    finally:
        file.release()


def forget(spool: Spool, name: str) -> None:
    """Remove a key's file when its mail cannot be submitted again; raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(f"{ONCE}/{name}", dir_fd=spool.root)


def confirm(locked: LockedMessage, names: str) -> None:
    """Make sure that a message's key files say that it was accepted, before it can leave the spool.

    Args:
        locked: the message. Since we hold its lock, its receiver has finished or is dead.
        names: the key files, as in the message's journal; empty if it has no key.

    Raises:
        OSError: this cannot be recorded; the message must stay in the spool.
    """
    for name in names.split():
        if is_name(name):
            _confirm(locked, name)


def confirm_arrival(locked: LockedMessage, move: str) -> None:
    """Record that a handover brought a message here, before it can leave the spool.

    The record answers for the message if the other spool asks once more.

    Args:
        locked: the message, which is this spool's own.
        move: the handover, as in its journal.

    Raises:
        OSError: this cannot be recorded; the message must stay in the spool.
    """
    # Otherwise a power cut could take the line that says so, and leave the record.
    locked.sync()
    try:
        adopt(locked.spool, name_of_move(move), locked.id, "", at=os.fstat(locked.fd).st_mtime)
    except InUse as error:
        raise BlockingIOError(errno.EAGAIN, "another program is recording it") from error
    locked.spool.sync_directory(ONCE)


def expect_arrival(spool: Spool, move: str, id: str, *, at: float) -> None:
    """Make the file for `confirm_arrival`, so that it has room even on a full disk; raises OSError."""
    with suppress(InUse):
        file = KeyFile.lock(spool, name_of_move(move))
        try:
            if not file.known.id:
                file.begin(id, "", at=at)
        finally:
            file.release()


def has_arrived(spool: Spool, move: str) -> bool:
    """Return whether a handover brought its message here, which may have left since.

    Raises:
        OSError: it is unknown, because a record that may say so cannot be read.
    """
    try:
        fd = open_key(spool, name_of_move(move), create=False)
    except FileNotFoundError:
        return False
    try:
        return read_key(fd).accepted
    finally:
        os.close(fd)


def _confirm(locked: LockedMessage, name: str) -> None:
    try:
        fd = open_key(locked.spool, name, create=False)
    except OSError as error:
        if error.errno in ABSENT:
            return
        raise
    file = KeyFile(locked.spool, name, fd)
    try:
        if file.known.id == locked.id and not file.known.accepted:
            file.confirm(locked.spot.directory)
    finally:
        file.release()
