"""The files of a DKIM key: `SELECTOR.private`, and beside it `SELECTOR.txt` with the record to publish.

A key that was swapped signs mail that nobody can verify, and only its public half tells it from the right
one. So the record that was published stays beside the key, and a key that does not match it is not used.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mailer.config.trust import Owners, Untrusted, read_trusted

if TYPE_CHECKING:
    from mailer.send.dkim.keys import PrivateKey

_LARGEST = 64 * 1024
"""Bytes; a PEM file has two thousand, and a wrong path must not fill the memory."""
_QUOTED = re.compile(r'"([^"]*)"')
_PUBLIC = re.compile(r"(?:^|;)\s*p=([A-Za-z0-9+/=\s]*)")

_Stamp = tuple[int, int, int, int, int]
"""Changes when a file does: device, inode, size, and the times of the last change to it and of its inode."""


class KeyTrouble(Exception):
    """A key file cannot be used; the text names it, and says why and what to do."""


@dataclass(slots=True)
class KeyFile:
    """One private key, read at its first use; later the file is looked at, and read again if it changed."""

    path: Path
    owners: Owners | None = None
    """Whose file is used; None: root's and ours."""
    _stamp: _Stamp | None = field(default=None, init=False)
    _key: "PrivateKey | None" = field(default=None, init=False)

    def key(self) -> "PrivateKey":
        """Return the key that the file holds now; two microseconds if it is the one that is known.

        Raises:
            KeyTrouble: it is gone, or cannot be used, or is another one than before or than was published.
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
        # Imported here: a run without mail to sign needs none of it.
        from mailer.send.dkim.keys import KeyUnusable, parse  # noqa: PLC0415

        pem, state = read_trusted(self.path, _LARGEST, owners=self.owners, secret=True)
        try:
            key = parse(pem)
        except KeyUnusable as error:
            raise KeyTrouble(f"the DKIM key {self.path} {error}") from error
        if self._key is not None and key.public != self._key.public:
            raise KeyTrouble(
                f"the DKIM key {self.path} is another one than when this program began to use it; "
                "if that is meant, start the program again"
            )
        published = published_key(self.path, self.owners)
        if published not in {None, key.public}:
            raise KeyTrouble(
                f"the DKIM key {self.path} does not belong to the record in {record_path(self.path)}: "
                "one of the two was swapped"
            )
        self._stamp, self._key = _stamp(state), key


def record_path(private: Path) -> Path:
    """Where the record of a private key is kept."""
    return private.with_suffix(".txt")


def published_key(private: Path, owners: Owners | None = None) -> str | None:
    """Return p= of the record beside a private key; None if there is no such file, or none with a record.

    It reads ours, and what opendkim-genkey writes.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        data, _ = read_trusted(record_path(private), _LARGEST, owners=owners)
    except FileNotFoundError:
        return None
    text = data.decode("ascii", "replace")
    pieces = _QUOTED.findall(text)
    found = _PUBLIC.search("".join(pieces) if pieces else text)
    return "".join(found.group(1).split()) if found else None


def zone_record(name: str, value: str) -> str:
    """Write a TXT record as a zone file has it: in strings of 255 characters at most (RFC 1035 3.3.14)."""
    strings = (f'"{value[at : at + 255]}"' for at in range(0, len(value), 255))
    return f"{name}. IN TXT ( {' '.join(strings)} )"


def write_new(private: Path, pem: bytes, record: str, owner: tuple[int, int] | None = None) -> None:
    """Write a new key and its record; never over an old one.

    Args:
        private: where to; its directory is made if need be, for its owner alone.
        pem: the private key.
        record: the text for the file beside it.
        owner: user and group that get what is made; None: whoever runs this keeps it.

    Raises:
        FileExistsError: one of the two files is there; nothing was changed.
        OSError: nothing usable was left behind.
    """
    beside, parent = record_path(private), private.parent
    made = [directory for directory in (parent, *parent.parents) if not directory.exists()]
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(beside, record.encode(), 0o644)
    try:
        _write(private, pem, 0o600)
        if owner is not None:
            for path in (*made, beside, private):
                os.chown(path, *owner)
    except FileExistsError:
        beside.unlink()
        raise
    except BaseException:
        private.unlink(missing_ok=True)
        beside.unlink()
        raise


def _write(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except BaseException:
        path.unlink()
        raise


def _stamp(state: os.stat_result) -> _Stamp:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
