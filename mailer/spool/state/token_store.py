"""Access and refresh tokens in `state/`, one file for each account, shared by all programs that send.

A refresh token that a server issued in place of another may be the only way back to the account. So it is
durable when `write` returns, and a file is only ever replaced by a whole one. A program that requests tokens
holds the account's lock, so that many runners make one request.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

import msgspec

from mailer.spool.directory import Spool
from mailer.spool.flock import lock
from mailer.spool.layout import FILE_MODE, STATE
from mailer.spool.state import small_files

ROOM = 2**20
"""Bytes that must be free before tokens are requested, since a server may issue a refresh token only once."""

_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PREFIX, _SUFFIX, _ASIDE = "token-", ".json", ".damaged"
_OFTEN = 28 * 86_400.0
"""Seconds. A refresh token that lasts less than this, and is replaced at each use, is renewed before it ends,
so that no warning is needed."""
_Moment = Annotated[float, msgspec.Meta(ge=0)]


class Tokens(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The tokens of one account; times are seconds since the epoch."""

    account: str = ""
    made_for: str = ""
    """A digest of the terms that they were issued for; under other terms they are not used."""
    access: str = ""
    obtained: _Moment = 0.0
    ends: _Moment = 0.0
    refresh: str = ""
    refreshed: _Moment = 0.0
    """When the refresh token was issued or last used."""
    refresh_ends: _Moment = 0.0
    """When the refresh token ends, as its server last said; 0 if it did not say."""
    replaced: bool = False
    """Whether the refresh token was replaced at its last use, which extends its life."""
    certificate_ends: _Moment = 0.0
    """When the certificate ends that the access token was requested with; 0 if there was none."""
    failed: _Moment = 0.0
    """When the last request failed; 0 if none has failed since the access token was issued."""
    failure: str = ""
    for_people: bool = False
    """Whether only a person can fix the cause of the failure."""

    @property
    def grant(self) -> tuple[str, str, str, float]:
        """The tokens and their terms, without the record of later failures."""
        if not (self.access or self.refresh):
            return "", "", "", 0.0
        return self.made_for, self.access, self.refresh, self.obtained

    def __repr__(self) -> str:
        return f"Tokens(account={self.account!r})"


class Ending(msgspec.Struct, frozen=True):
    """When an account's credentials end, in seconds since the epoch; 0 if unknown."""

    certificate: float = 0.0
    refresh: float = 0.0
    put_off: bool = False
    """Whether each use of the refresh token extends its life."""

    @classmethod
    def of(cls, kept: Tokens) -> Self:
        """Return the endings of an account's stored tokens."""
        short = kept.refresh_ends - kept.refreshed < _OFTEN
        return cls(
            kept.certificate_ends, 0.0 if kept.replaced and short else kept.refresh_ends, kept.replaced
        )


def read(spool: Spool, account: str) -> Tokens:
    """Return the stored tokens; empty ones if there is no file, or none that can be decoded.

    Raises:
        OSError: the file cannot be read; it may hold tokens all the same.
    """
    return _read(spool, _name(account))


def _read(spool: Spool, name: str) -> Tokens:
    data = small_files.read_last(spool, name, lambda written: _decoded(written) is not None)
    return _decoded(data or b"") or Tokens()


def _decoded(data: bytes) -> Tokens | None:
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(data, type=Tokens)
    return None


def path_of(spool: Spool, account: str) -> Path:
    """Return the path of an account's file."""
    return spool.path / STATE / _name(account)


def damaged(spool: Spool, account: str) -> Path | None:
    """Return the file that was kept because it cannot be decoded; None if there is none. Raises OSError."""
    with spool.directory(STATE) as directory, contextlib.suppress(FileNotFoundError):
        os.stat(f"{_name(account)}{_ASIDE}", dir_fd=directory, follow_symlinks=False)
        return spool.path / STATE / f"{_name(account)}{_ASIDE}"
    return None


def endings(spool: Spool) -> dict[str, Ending]:
    """Return, by account, when its credentials end; files that cannot be read are left out.

    Raises:
        OSError: `state/` cannot be read.
    """
    with spool.directory(STATE) as directory, os.scandir(directory) as entries:
        known = [each.name for each in entries if each.name.startswith(_PREFIX)]
    found = {}
    for name in known:
        if name.endswith(_SUFFIX):
            with contextlib.suppress(OSError):
                kept = _read(spool, name)
                found[kept.account] = Ending.of(kept)
    return {account: ending for account, ending in found.items() if account}


def write(spool: Spool, account: str, tokens: Tokens) -> None:
    """Store tokens durably; a file that cannot be decoded is renamed first.

    Raises:
        OSError: the old file is unchanged. This includes an old file that cannot be read.
    """
    keep_damaged(spool, account)
    data = msgspec.json.format(msgspec.json.encode(tokens), indent=2) + b"\n"
    small_files.replace(spool, _name(account), data)
    spool.sync_directory(STATE)


def keep_damaged(spool: Spool, account: str) -> None:
    """Rename an account's file if it cannot be decoded: a refresh token may still be legible in it.

    Programs then continue as if there were no file: most servers accept the refresh token of the
    configuration again, and if there is none the operator is told of the file. Of two damaged files the newer
    one is kept, which has the later refresh token. Raises OSError if the file cannot be read or renamed.
    """
    there = small_files.read_if_any(spool, _name(account))
    if there and there.strip(b"\0 \n") and _decoded(there) is None:
        set_aside(spool, account)


def set_aside(spool: Spool, account: str) -> None:
    """Rename an account's file to a name that no program reads; raises OSError."""
    name = _name(account)
    with spool.directory(STATE) as directory:
        os.rename(name, f"{name}{_ASIDE}", src_dir_fd=directory, dst_dir_fd=directory)


def forget(spool: Spool, account: str) -> bool:
    """Remove an account's files durably; return whether there were any. Raises OSError."""
    aside = small_files.remove(spool, f"{_name(account)}{_ASIDE}")
    removed = small_files.remove(spool, _name(account)) or aside
    spool.sync_directory(STATE)
    return removed


@contextlib.contextmanager
def locked(spool: Spool, account: str) -> Iterator[bool]:
    """Try to hold the account's lock for the block, and yield whether that worked; raises OSError."""
    with spool.directory(STATE) as directory:
        fd = os.open(f"{_stem(account)}.lock", _LOCK, FILE_MODE, dir_fd=directory)
    try:
        yield lock(fd)
    finally:
        os.close(fd)


def _name(account: str) -> str:
    return f"{_stem(account)}{_SUFFIX}"


def _stem(account: str) -> str:
    """Return the stem of an account's files: a digest, since an account name may not fit a file name."""
    return f"{_PREFIX}{hashlib.sha256(account.encode()).hexdigest()[:20]}"
