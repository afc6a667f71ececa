"""Epochs: which machine may use the spool of each host, when several hosts share a directory.

    spoolDir/
      .hosts/a.1        host a's first epoch: a began to use spoolDir/a
      .hosts/a.2        b has taken over a's spool
      .hosts/a.3        b has moved the mail out of it, and it has no owner
      a/  b/            the spools

An epoch is a file that is created once, whole, by one exclusive link(2), and never changed. The highest
number decides. So if two hosts claim the same spool, exactly one gets it, and no lock of the filesystem is
needed. A host whose epoch has ended stops by itself: see `lease`.
"""

import errno
import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Self

import msgspec

from mailer.ground import durable
from mailer.mail import clock
from mailer.spool.layout import DIRECTORY_MODE, FILE_MODE, HOSTS
from mailer.spool.preparation import SpoolError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST = 16 * 1024
_MACHINE_ID = 32
"""Digits of machine-id(5)."""
_WORD = 20


class NotJoined(SpoolError):
    """The hosts that share the directory do not know this one; the text says what to do."""


class Overtaken(SpoolError):
    """Another host created the same epoch first."""


class Why(StrEnum):
    """The event that began an epoch."""

    JOINED = "joined"
    """The host began to use its spool."""
    ADOPTED = "adopted"
    """Another host took the spool over."""
    LEFT = "left"
    """The host left, or its adopter has moved all mail out: the spool has no owner."""


class Machine(msgspec.Struct, frozen=True):
    """A machine in its role as one of the hosts."""

    host: str
    """The host's name (`host`)."""
    word: str
    """A digest of the machine's id and the host's name."""


class Epoch(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A period in which the spool of a host belongs to one machine, or has no owner."""

    host: str
    number: int
    owner: str = ""
    """`Machine.word` of the owner, which may use the spool; empty: none."""
    owner_host: str = ""
    """The host that this machine is: after an adoption another one than `host`."""
    node: str = ""
    """The machine's name (uname -n), shown to operators."""
    why: Why
    at: str = ""
    by: str = ""
    """The operator."""
    evidence: str = ""
    """How it was ensured that the previous owner cannot use the spool any more."""
    nonce: str = ""
    """Distinguishes two attempts to create the same epoch."""

    def is_of(self, machine: Machine) -> bool:
        """Return whether this machine may use the spool."""
        return (self.owner_host, self.owner) == (machine.host, machine.word)


def this_machine(host: str, path: Path = Path("/etc/machine-id")) -> Machine:
    """Return this machine. machine-id(5) asks not to publish the id itself, so the word is a keyed digest.

    The host's name is part of it, because containers of one image often have the same machine id.

    Raises:
        SpoolError: this machine has no id.
    """
    try:
        known = path.read_text("ascii", "replace").strip()
    except OSError:
        known = ""
    if len(known) != _MACHINE_ID:  # `uninitialized` while the system is being set up
        raise SpoolError(
            None,
            f"{path} has no machine id, by which hosts that share a directory tell each other apart: type: "
            "systemd-machine-id-setup; in a container, mount a file there that outlives it",
        )
    digest = hmac.new(known.encode(), f"mailer host {host}".encode(), sha256).hexdigest()
    return Machine(host, digest[:_WORD])


class Hosts:
    """The directory `.hosts`, opened. Programs of a host read it; only operators' commands write to it."""

    def __init__(self, shared: Path, fd: int) -> None:
        self.shared = shared
        """The directory that the hosts share."""
        self._fd = fd

    @classmethod
    def open(cls, shared: Path, *, create: bool = False) -> Self:
        """Open it, and with `create` make it first.

        Programs never make it: without the mount, they would make it in the empty mount point.

        Raises:
            NotJoined: no host has joined here.
            SpoolError: it is another user's.
            OSError: it cannot be opened or made.
        """
        parent = os.open(shared, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(HOSTS, DIRECTORY_MODE, dir_fd=parent)
                os.fsync(parent)
            fd = os.open(HOSTS, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            raise NotJoined(
                None,
                f"no host has joined in {shared}: is its filesystem mounted? For the first host, type: "
                "mailer hosts join",
            ) from None
        finally:
            os.close(parent)
        hosts = cls(shared, fd)
        try:
            hosts._check(os.fstat(fd))
        except OSError:
            hosts.close()
            raise
        return hosts

    def _check(self, state: os.stat_result) -> None:
        """Refuse a directory that other users could change: epochs decide which host sends which mail."""
        path = self.shared / HOSTS
        if state.st_uid != os.geteuid():
            raise SpoolError(
                None,
                f"{path} belongs to user {state.st_uid}, and this runs as {os.geteuid()}: run as its owner",
            )
        if stat.S_IMODE(state.st_mode) & 0o022:
            raise SpoolError(None, f"{path} can be changed by other users: type: chmod 0700 {path}")

    def names(self) -> list[str]:
        """Return the hosts that have ever joined, sorted; raises OSError."""
        return sorted({host for host, _ in self._numbers()})

    def latest(self, host: str) -> Epoch | None:
        """Return the epoch that holds for a host's spool; None if the host never joined.

        Raises:
            SpoolError: its file cannot be read as an epoch.
            OSError: it cannot be read.
        """
        number = max((number for name, number in self._numbers() if name == host), default=0)
        return self._read(host, number) if number else None

    def last_user(self, host: str) -> Epoch | None:
        """Return the latest epoch in which a host's spool had an owner; None: it never had one.

        Raises as `latest`.
        """
        latest = self.latest(host)
        while latest and not latest.owner:
            latest = self._read(host, latest.number - 1) if latest.number > 1 else None
        return latest

    def _read(self, host: str, number: int) -> Epoch:
        name = f"{host}.{number}"
        fd = os.open(name, _FILE, dir_fd=self._fd)
        try:
            text = os.read(fd, _LONGEST)
        finally:
            os.close(fd)
        try:
            epoch = msgspec.json.decode(text, type=Epoch)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            epoch = None
        if epoch is None or (epoch.host, epoch.number) != (host, number):
            raise SpoolError(
                errno.EIO,
                f"{self.shared / HOSTS / name} is damaged; without it no host may use {self.shared / host}: "
                "restore it from a backup, or delete it if you know that no other host uses that spool",
            )
        return epoch

    def _numbers(self) -> Iterator[tuple[str, int]]:
        # Opened for each look: NFS asks the server when a directory is opened, and lists one that stays open
        # from its cache, 26 seconds after another mount made an epoch; btrfs has listed what there was then.
        fd = os.open(".", _DIRECTORY, dir_fd=self._fd)
        try:
            with os.scandir(fd) as entries:
                names = [entry.name for entry in entries]
        finally:
            os.close(fd)
        for name in names:
            host, _, digits = name.rpartition(".")
            if host and not host.startswith(".") and digits.isascii() and digits.isdigit():
                yield host, int(digits)

    def advance(self, epoch: Epoch) -> Epoch:
        """Begin an epoch, durably; return it with its nonce.

        Args:
            epoch: with the number after that of the epoch which was read.

        Raises:
            Overtaken: another host has created this epoch.
            OSError: it may or may not have begun; read it again.
        """
        epoch = msgspec.structs.replace(epoch, nonce=secrets.token_hex(8))
        name, draft = f"{epoch.host}.{epoch.number}", f".{epoch.host}.{epoch.number}.{epoch.nonce}"
        durable.create(draft, msgspec.json.encode(epoch) + b"\n", self._fd, FILE_MODE)
        try:
            os.link(draft, name, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except FileExistsError:
            # A request that was sent twice over a network reports this although its first copy succeeded.
            found = self._read(epoch.host, epoch.number)
            if found.nonce != epoch.nonce:
                who = f"{found.node or 'another host'} at {found.at}"
                raise Overtaken(None, f"the spool of {epoch.host} was {found.why} by {who}") from None
        finally:
            os.unlink(draft, dir_fd=self._fd)
        os.fsync(self._fd)
        return epoch

    def close(self) -> None:
        """Close it; nothing happens if it is closed already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Grounds(msgspec.Struct, frozen=True):
    """The operator that begins an epoch, and the evidence that this is safe."""

    by: str
    """The operator."""
    evidence: str = ""
    """How it was ensured that the previous owner cannot use the spool any more."""


def following(
    latest: Epoch | None, host: str, why: Why, now: float, grounds: Grounds, owner: Machine | None = None
) -> Epoch:
    """Return the epoch after another one (None: the first); an empty owner leaves the spool without one."""
    return Epoch(
        host=host,
        number=latest.number + 1 if latest else 1,
        owner=owner.word if owner else "",
        owner_host=owner.host if owner else "",
        node=os.uname().nodename,
        why=why,
        at=clock.rfc3339(now),
        by=grounds.by,
        evidence=grounds.evidence,
    )
