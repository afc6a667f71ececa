"""The suppression list: addresses and domains that get no mail, in 4,096 files of `suppressed/`.

Each file has one JSON object per line, and is only ever replaced by a whole one, durably, under the lock of
the directory. An entry's file is named by a digest of the entry, so that a lookup reads a 4,096th of the
list, and nothing is kept in memory between lookups. *A million addresses: 115 MB, imported in 15 s with 190
MB of memory; a recipient, its domain included, takes 0.2 ms, and 0.04 ms with an empty list; on a busy
machine.*

Addresses are compared without regard to the case of ASCII letters, in the local part too, and without
redundant quotes. RFC 5321 2.4 lets a host distinguish `Bob` from `bob`, but hardly any host does, and to mail
a suppressed recipient is the worse mistake.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import sha256

import msgspec

from mailer.mail.address import check_address
from mailer.mail.patterns import compared, folded
from mailer.spool.directory import Spool
from mailer.spool.layout import FILE_MODE, SUPPRESSED
from mailer.spool.syscalls import read_at, sync_filesystem

_FEW = 8
"""Files up to this number are synced one by one; for more, the whole filesystem, which may have much to
write."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A suppressed address or domain. Times are in the ledger's format."""

    address: str
    """The address or domain, normalized by `key`."""
    at: str = ""
    by: str = ""
    """The operator's login; or the server's reply, for an entry that a run added."""
    reason: str = ""
    until: str = ""
    """When the entry ends; empty if it does not."""
    awaits: str = ""
    """A server has refused the address once. A second refusal from this time on completes the entry, which
    has no effect until then. Empty if it is complete."""

    def counts(self, now: str) -> bool:
        return not self.awaits and (not self.until or now < self.until)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_Entries = dict[str, Entry]
"""Entries by address, in the order of the file."""


def key(text: str) -> str:
    """Return an address or a domain in its normalized form; `@example.com` becomes `example.com`.

    Raises:
        ValueError: it is neither; the text says why.
    """
    plain = folded(text.strip())
    local, _, domain = plain.rpartition("@")
    check_address(f"{local or 'any'}@{domain}")
    if not local and "." not in domain:
        raise ValueError("it has neither a local part nor a dot")
    return compared(plain).removeprefix("@")


def find(spool: Spool, address: str, now: str) -> Entry | None:
    """Return the entry that keeps a recipient from being mailed, for its address or its domain.

    Args:
        spool: the spool.
        address: the recipient's address.
        now: in the ledger's time format.

    Raises:
        OSError: the list cannot be read, so the recipient must not be mailed.
    """
    try:
        plain = key(address)
    except ValueError:
        plain = folded(address)
    for name in (plain, plain.rpartition("@")[2]):
        if (entry := look_up(spool, name)) and entry.counts(now):
            return entry
    return None


def look_up(spool: Spool, name: str) -> Entry | None:
    """Return the entry with this normalized name, whether it has effect or not; raises OSError."""
    try:
        fd = os.open(f"{SUPPRESSED}/{_file_of(name)}", _OLD, dir_fd=spool.root)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EPERM, "it is not a file: move it away", f"{SUPPRESSED}/{_file_of(name)}")
        # Not mapped, because a bad sector would then kill the program instead of raising EIO.
        data = read_at(fd, found.st_size, 0)
    finally:
        os.close(fd)
    return _found(data, name)


def _found(data: bytes, name: str) -> Entry | None:
    """Return the last entry of an address, as `_read` would, without decoding all lines."""
    quoted = _encoder.encode(name)
    entry, at = None, data.find(quoted)
    while at >= 0:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        try:
            told = _decoder.decode(data[data.rfind(b"\n", 0, at) + 1 : end])
        except _UNREADABLE:
            told = Entry(address=name, reason="its entry cannot be read")
        # The text may have matched in the reason of another entry.
        entry = told if told.address == name else entry
        at = data.find(quoted, end)
    return entry


def entries(spool: Spool) -> Iterator[Entry]:
    """Yield all entries, in no order; raises OSError."""
    with contextlib.suppress(FileNotFoundError), spool.directory(SUPPRESSED) as directory:
        for number in range(4096):
            yield from _read(directory, f"{number:03x}").values()


def add(spool: Spool, new: Iterable[Entry]) -> list[Entry]:
    """Add entries, durably, in place of any old ones; return those whose address is new.

    Raises:
        OSError: some entries may have been added.
    """
    if spool.make_directory(SUPPRESSED):
        os.fsync(spool.root)
    by_file: dict[str, list[Entry]] = {}
    for entry in new:
        by_file.setdefault(_file_of(entry.address), []).append(entry)
    fresh: list[Entry] = []

    def added(known: _Entries, name: str) -> None:
        for entry in by_file[name]:
            if entry.address not in known:
                fresh.append(entry)
            known[entry.address] = entry

    _change(spool, by_file, added)
    return fresh


def amend(spool: Spool, names: Iterable[str], how: Callable[[Entry | None, str], Entry | None]) -> None:
    """Replace entries, durably, without waiting for another program that changes the list.

    Args:
        spool: the spool.
        names: the names of the entries, normalized by `key`.
        how: takes the present entry or None, and the name; returns the new entry, or None to remove it.

    Raises:
        OSError: some entries may have been replaced; none if another program holds the list's lock.
    """
    if spool.make_directory(SUPPRESSED):
        os.fsync(spool.root)
    by_file: dict[str, list[str]] = {}
    for name in names:
        by_file.setdefault(_file_of(name), []).append(name)

    def amended(known: _Entries, file: str) -> None:
        for name in by_file[file]:
            if entry := how(known.get(name), name):
                known[name] = entry
            else:
                known.pop(name, None)

    _change(spool, by_file, amended, waits=False)


def remove(spool: Spool, names: Iterable[str]) -> list[str]:
    """Remove entries, durably, and return those that existed; after an OSError some may be gone."""
    by_file: dict[str, list[str]] = {}
    for name in names:
        by_file.setdefault(_file_of(name), []).append(name)
    gone: list[str] = []

    def removed(known: _Entries, file: str) -> None:
        gone.extend(name for name in by_file[file] if known.pop(name, None))

    with contextlib.suppress(FileNotFoundError):
        _change(spool, by_file, removed)
    return gone


def _change(
    spool: Spool, names: Collection[str], how: Callable[[_Entries, str], None], *, waits: bool = True
) -> None:
    with spool.directory(SUPPRESSED) as directory:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BlockingIOError(errno.EAGAIN, "another program has it locked", SUPPRESSED) from None
        changed = []
        for name in names:
            unreadable: list[bytes] = []
            known = _read(directory, name, unreadable.append)
            before = dict(known)
            how(known, name)
            if known != before:
                _write(directory, name, known, unreadable)
                changed.append(name)
        if len(changed) <= _FEW or not sync_filesystem(directory):
            for name in changed:
                _sync(directory, f".{name}")
        for name in changed:
            os.rename(f".{name}", name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def _read(
    directory: int, name: str, on_unreadable: Callable[[bytes], object] = lambda _line: None
) -> _Entries:
    found: _Entries = {}
    try:
        fd = os.open(name, _OLD, dir_fd=directory)
    except FileNotFoundError:
        return found
    with os.fdopen(fd, "rb") as file:
        for line in file:
            try:
                entry = _decoder.decode(line)
            except _UNREADABLE:
                on_unreadable(line)
            else:
                found[entry.address] = entry
    return found


def _write(directory: int, name: str, known: _Entries, unreadable: list[bytes]) -> None:
    """Write a file's replacement next to it; the directory is locked, so no other program does so.

    Lines that cannot be read are kept, after the others: an address that occurs in one gets no mail.
    """
    temporary = f".{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)
    with os.fdopen(os.open(temporary, _NEW, FILE_MODE, dir_fd=directory), "wb") as file:
        file.writelines(_encoder.encode(entry) + b"\n" for entry in known.values())
        file.writelines(line if line.endswith(b"\n") else line + b"\n" for line in unreadable)


def _sync(directory: int, name: str) -> None:
    fd = os.open(name, _OLD, dir_fd=directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _file_of(name: str) -> str:
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:3]
