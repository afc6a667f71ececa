"""The files of a DKIM key: `SELECTOR.private`, and next to it `SELECTOR.txt` with the record to publish.

Signatures of a wrong key cannot be verified, and only its public half tells it from the right one. So the
published record is kept next to the key, and a key that does not match its record is not used.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mailer.config.trust import (
    Owners,
    Untrusted,
    for_the_group,
    hand_over,
    ours,
    read_trusted,
    trusted_directory,
)
from mailer.ground import durable

if TYPE_CHECKING:
    from mailer.send.dkim.keys import PrivateKey

_MAX_FILE = 64 * 1024
"""The most bytes of a key or record file. A PEM file has 2,000; a wrong path must not fill the memory."""
_QUOTED = re.compile(r'"([^"]*)"')
_PUBLIC = re.compile(r"(?:^|;)\s*p=([A-Za-z0-9+/=\s]*)")

_Stamp = tuple[int, int, int, int, int]
"""Changes whenever a file does: device, inode, size, mtime and ctime."""


class KeyTrouble(Exception):
    """A key file cannot be used; the text names it, and says why and what to do."""


@dataclass(slots=True)
class KeyFile:
    """One private key, read at its first use, and again at a later use if the file has changed."""

    path: Path
    owners: Owners | None = None
    """The users whose file is trusted; None: root and ours."""
    _stamp: _Stamp | None = field(default=None, init=False)
    _key: "PrivateKey | None" = field(default=None, init=False)

    def key(self) -> "PrivateKey":
        """Return the key that the file holds now; takes two microseconds if the file has not changed.

        Raises:
            KeyTrouble: the file is gone or unusable, or its key differs from the one before or from the
                published record.
        """
        try:
            if self._key is None or _stamp(self.path.stat()) != self._stamp:
                self._read()
        except Untrusted as error:
            raise KeyTrouble(f"the DKIM key {self.path} is not used: {error.strerror}") from error
        except OSError as error:
            raise KeyTrouble(f"the DKIM key {self.path} cannot be read: {error.strerror}") from error
        assert self._key is not None
        return self._key

    def _read(self) -> None:
        # Imported here, since a run without mail to sign does not need it.
        from mailer.send.dkim.keys import KeyUnusable, parse  # noqa: PLC0415

        pem, state = read_trusted(self.path, _MAX_FILE, owners=self.owners, secret=True)
        try:
            key = parse(pem)
        except KeyUnusable as error:
            raise KeyTrouble(f"the DKIM key {self.path} {error}") from error
        if self._key is not None and key.public != self._key.public:
            raise KeyTrouble(
                f"the DKIM key {self.path} was replaced after this program had begun to use it; "
                "if that was intended, restart the program"
            )
        published = published_key(self.path, self.owners)
        if published not in {None, key.public}:
            raise KeyTrouble(
                f"the DKIM key {self.path} does not match the record in {record_path(self.path)}: "
                "restore the file that was replaced"
            )
        self._stamp, self._key = _stamp(state), key


def record_path(private: Path) -> Path:
    """Return the path of a private key's record."""
    return private.with_suffix(".txt")


def published_key(private: Path, owners: Owners | None = None) -> str | None:
    """Return p= of the record next to a private key; None if the file does not exist or has no record.

    Both our format and that of opendkim-genkey are understood.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        data, _ = read_trusted(record_path(private), _MAX_FILE, owners=owners)
    except FileNotFoundError:
        return None
    text = data.decode("ascii", "replace")
    pieces = _QUOTED.findall(text)
    found = _PUBLIC.search("".join(pieces) if pieces else text)
    return "".join(found.group(1).split()) if found else None


def zone_record(name: str, value: str) -> str:
    """Return a TXT record in zone file syntax, in strings of at most 255 characters (RFC 1035 3.3.14)."""
    strings = (f'"{value[at : at + 255]}"' for at in range(0, len(value), 255))
    return f"{name}. IN TXT ( {' '.join(strings)} )"


def write_new(private: Path, pem: bytes, record: str, owner: os.stat_result | None = None) -> None:
    """Write a new key and its record. Existing files are never overwritten, and links are not followed.

    Args:
        private: path of the key; its directory is created if necessary, accessible to its owner only.
        pem: the private key.
        record: the content of the record's file.
        owner: stat of the user and group that get the files if root creates them; None: those of the existing
            directory. If that belongs to root and another group, the group may read, since the runner is not
            root.

    Raises:
        FileExistsError: one of the two files exists; nothing was changed.
        Untrusted: other users can write to the directory.
        OSError: writing failed; no incomplete file was left behind.
    """
    beside = record_path(private)
    with _directory(private.parent, owner) as directory:
        like = owner or os.fstat(directory)
        _write(beside, record.encode(), 0o644, directory, like)
        try:
            _write(private, pem, 0o640 if for_the_group(like) else 0o600, directory, like)
        except BaseException:
            os.unlink(beside.name, dir_fd=directory)
            raise
        durable.sync_directory(directory)


@contextmanager
def _directory(path: Path, owner: os.stat_result | None) -> Iterator[int]:
    """Open a directory that only we, root and the owner can write to; create missing parts of its path."""
    owners = ours() | ({owner.st_uid} if owner else set())
    with ExitStack() as opened:
        at = -1
        for base in (path.absolute(), *path.absolute().parents):
            try:
                at = opened.enter_context(trusted_directory(base, owners=owners))
            except FileNotFoundError:
                continue
            break
        for name in path.absolute().relative_to(base).parts:
            at = _make(name, at, owner or os.fstat(at))
            opened.callback(os.close, at)
        yield at


def _make(name: str, at: int, owner: os.stat_result) -> int:
    mode = 0o750 if for_the_group(owner) else 0o700
    os.mkdir(name, mode, dir_fd=at)
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        _check_new(made, name)
        os.fchmod(made, mode)
        hand_over(made, owner)
        durable.sync_directory(at)
    except BaseException:
        os.close(made)
        raise
    return made


def _check_new(made: int, name: str) -> None:
    """Check that a new directory is ours and empty, so that root never gives away one moved in its place."""
    if os.fstat(made).st_uid != os.geteuid() or os.listdir(made):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _write(path: Path, data: bytes, mode: int, directory: int, owner: os.stat_result) -> None:
    """Create a file in its directory, write it, and hand it over to its owner."""

    def prepare(fd: int) -> None:
        os.fchmod(fd, mode)  # whatever the umask
        hand_over(fd, owner)

    try:
        durable.create(path.name, data, directory, mode, prepare)
    except FileExistsError as error:
        raise FileExistsError(error.errno, error.strerror, str(path)) from None


def _stamp(state: os.stat_result) -> _Stamp:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
