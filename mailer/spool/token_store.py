"""Access and refresh tokens in `state/`, one file for each account, shared by all programs that send.

A refresh token that a server gave in place of another may be the only way back to the account: it is durable
when `write` returns, and a file is only ever replaced by a whole one. Who asks a server for tokens holds the
account's lock, so that many runners ask once.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Annotated

import msgspec

from mailer.spool import state
from mailer.spool.held import lock
from mailer.spool.layout import FILE_MODE, STATE, Spool

ROOM = 2**20
"""Bytes that must be free before a server is asked: what it gives may never be given again."""

_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_Moment = Annotated[float, msgspec.Meta(ge=0)]


class Tokens(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What is kept of one account; moments are seconds since the epoch."""

    account: str = ""
    made_for: str = ""
    """A digest of the terms that they were made for; under other terms they are not used."""
    access: str = ""
    obtained: _Moment = 0.0
    ends: _Moment = 0.0
    refresh: str = ""
    refreshed: _Moment = 0.0
    """When the refresh token came or was last used."""
    failed: _Moment = 0.0
    """When a server was last asked in vain; 0: not since the access token came."""
    failure: str = ""
    for_people: bool = False
    """Only people can mend that."""

    def __repr__(self) -> str:
        return f"Tokens(account={self.account!r})"


def read(spool: Spool, account: str) -> Tokens:
    """Return what is kept; nothing where that cannot be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(state.read_last(spool, _name(account)) or b"", type=Tokens)
    return Tokens()


def write(spool: Spool, account: str, tokens: Tokens) -> None:
    """Keep these, durably; raises OSError, and then what was kept is still there."""
    data = msgspec.json.format(msgspec.json.encode(tokens), indent=2) + b"\n"
    state.replace(spool, _name(account), data)
    spool.sync_directory(STATE)


def forget(spool: Spool, account: str) -> bool:
    """Remove what is kept, durably; tell whether there was anything. Raises OSError."""
    removed = state.remove(spool, _name(account))
    spool.sync_directory(STATE)
    return removed


@contextlib.contextmanager
def locked(spool: Spool, account: str) -> Iterator[bool]:
    """Try to take the account's lock for the block, and say whether that worked; raises OSError."""
    with spool.directory(STATE) as directory:
        fd = os.open(f"{_stem(account)}.lock", _LOCK, FILE_MODE, dir_fd=directory)
    try:
        yield lock(fd)
    finally:
        os.close(fd)


def _name(account: str) -> str:
    return f"{_stem(account)}.json"


def _stem(account: str) -> str:
    """Name an account's files: an account holds a host and a login, which no file name need take."""
    return f"token-{hashlib.sha256(account.encode()).hexdigest()[:20]}"
