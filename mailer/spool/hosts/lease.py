"""The lease under which a program uses the spool of its host, when several hosts share a directory.

The host that takes over a spool begins a new epoch (`epochs`), and then waits for `LEASE` seconds. Each
program of the old host renews its lease every `RENEW_EVERY` seconds: it reads the epoch, and may use the
spool for `LEASE` seconds from when it began to read. So before the new owner touches the spool, the
old one has stopped to accept mail and to send final dots, even if it is cut off from the directory and cannot
learn why. Messages that were `committing` at that time become `uncertain`.

Each renewal first writes and syncs a record in `state/`, since reading alone could be served from a cache.
The clock is CLOCK_BOOTTIME, which also counts suspended time. A virtual machine that was paused together with
its clock notices the takeover only at its next renewal, at most `RENEW_EVERY` seconds after it continues. To
be safe against that, fence it from its storage: it then cannot write the journal line that precedes each
final dot.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from mailer.mail import clock
from mailer.mail.clock import Clocks
from mailer.spool.directory import Spool
from mailer.spool.hosts.epochs import Epoch, Hosts, Machine
from mailer.spool.layout import FILE_MODE, STATE
from mailer.spool.preparation import SpoolError
from mailer.spool.state import small_files

LEASE = 30.0
"""Seconds that a renewed lease lasts."""
RENEW_EVERY = 5.0
MARGIN = 5.0
"""Seconds that the new owner waits in addition: clocks of two machines run at slightly different rates."""

_DRAINING = "draining"
_PREFIX = "lease-"
_OF_BOOT = 8
"""Digits of the boot's id in the name of its record."""
_BEAT = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST = 256
_STALE = 120.0
"""Seconds after which the unchanged record of an earlier boot is removed."""


class NoLease(SpoolError):
    """The program may not use the spool at the moment, or never again."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.ESTALE, why)


class Lease:
    """This program's right to accept and send mail in the spool of its host."""

    def __init__(
        self, spool: Spool, hosts: Hosts, machine: Machine, clocks: Clocks, adopted: str = ""
    ) -> None:
        """Prepare; `renew` takes the lease.

        Args:
            spool: the host's own, or one that it is taking over.
            hosts: the epochs of all hosts; closed by this object.
            machine: this machine.
            clocks: its clocks. The lease counts seconds since boot, also while the host is suspended.
            adopted: the host whose spool it is taking over; empty: it is its own.
        """
        self._adopted = adopted
        self._host = adopted or machine.host
        self._spool = spool
        self._hosts = hosts
        self._machine = machine
        self._boot = _PREFIX + clocks.boot[:_OF_BOOT]
        self._file = "-".join(filter(None, (self._boot, client_of(spool))))
        self._now = clocks.uptime
        self._wall = clocks.wall
        self.draining = False
        """Whether the operator wants new mail refused (`mailer hosts drain`)."""
        self._until = float("-inf")
        self._why = "it has not been taken yet"
        self.lost = ""
        """Why this host has lost the spool; empty while it has not, as far as is known."""
        self._others: dict[str, tuple[bytes, float]] = {}
        """Records of other boots of this host: their content, and since when it is unchanged."""
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Return if the program may accept and send mail now. It makes no system call.

        Raises:
            NoLease: it may not.
        """
        if self._now() >= self._until or self.lost:
            raise NoLease(self.lost or f"the lease on {self._spool.path} has ended: {self._why}")

    def renew(self) -> None:
        """Read the epoch, and renew the lease if the spool still belongs to this host.

        Raises:
            NoLease: it does not, which is final for this program; or another machine uses it as this host.
            OSError: it is unknown; the lease stays as it was.
        """
        began = self._now()
        self._beat()
        epoch = self._hosts.latest(self._host)
        if epoch is None or not epoch.is_of(self._machine):
            self.lost = lost(epoch, self._host)
            raise NoLease(self.lost)
        if twin := self._twin(began):
            self._until = float("-inf")
            self._why = twin
            raise NoLease(twin)
        self.draining = not self._adopted and is_draining(self._spool)
        self._until = began + LEASE

    def keep(self, on_lost: Callable[[str], None]) -> None:
        """Renew the lease from now on, in a thread, since a filesystem over a network may hang.

        Args:
            on_lost: called in that thread, once, when this host has lost the spool.
        """
        self._thread = threading.Thread(target=self._keep, args=(on_lost,), name="lease", daemon=True)
        self._thread.start()

    def _keep(self, on_lost: Callable[[str], None]) -> None:
        with self._hosts:
            while not self._ending.wait(RENEW_EVERY):
                try:
                    self.renew()
                except OSError as error:
                    if self.lost:
                        if not self._ending.is_set():
                            on_lost(self.lost)
                        return
                    self._why = error.strerror or str(error)

    def end(self) -> None:
        """Stop renewing the lease; the program makes no further use of the spool that needs it."""
        if self._thread is None and not self._ending.is_set():
            self._hosts.close()  # Otherwise the thread closes it, which may hang in a system call now.
        self._ending.set()

    def forget(self) -> None:
        """Remove this machine's record from a spool that it took over and is done with; raises OSError."""
        with self._spool.directory(STATE) as directory, suppress(FileNotFoundError):
            os.unlink(self._file, dir_fd=directory)

    def _beat(self) -> None:
        """Write the record of this lease, and wait until the storage confirms it; raises OSError."""
        with self._spool.directory(STATE) as directory:
            fd = os.open(self._file, _BEAT, FILE_MODE, dir_fd=directory)
        try:
            text = f"{clock.rfc3339(self._wall())} {self._now():.3f} {os.getpid()}\n".encode()
            os.pwrite(fd, text, 0)
            os.ftruncate(fd, len(text))
            os.fsync(fd)
        finally:
            os.close(fd)

    def _twin(self, now: float) -> str:
        """Describe another machine that uses the spool under this host's name; empty: none does.

        A cloned machine has the same machine id and the same configuration, but not the same boot.
        """
        for name, text in records(self._spool):
            if name == self._file:
                continue
            before, since = self._others.setdefault(name, (text, now))
            if text != before:
                self._others[name] = (text, now)
                since = now
            if text != before and not name.startswith(self._boot):
                return (
                    f"another machine with the same id is host {self._machine.host}, too: give one of them "
                    "another `host`, or another id (rm /etc/machine-id; systemd-machine-id-setup)"
                )
            if now - since > _STALE:
                with suppress(OSError), self._spool.directory(STATE) as directory:
                    os.unlink(name, dir_fd=directory)
        return ""


def lost(epoch: Epoch | None, host: str) -> str:
    """Return why a machine may not use the spool of a host, and what to do."""
    if epoch is None:
        return f"host {host} has not joined the others: type: mailer hosts join"
    if not epoch.owner:
        return f"host {host} has left, at {epoch.at}: to use its spool again, type: mailer hosts join"
    if epoch.owner_host != host:
        return (
            f"the spool of {host} was taken over by {epoch.owner_host} ({epoch.node}) at {epoch.at}; when "
            f"`mailer hosts` shows that {host} has left, type: mailer hosts join"
        )
    return (
        f"host {host} is another machine, {epoch.node}, since {epoch.at}: set another `host` here; or, if "
        "that machine is gone, type: mailer hosts join --off"
    )


def renewed(spool: Spool) -> str:
    """Return when a program of a host last renewed its lease, by that host's clock; empty: never.

    Raises OSError.
    """
    times = (text.split()[0].decode("ascii", "replace") for _, text in records(spool) if text.split())
    return max(times, default="")


def client_of(spool: Spool) -> str:
    """Return the id of the CephFS client through which a spool was opened; empty on other filesystems."""
    try:
        return os.getxattr(spool.root, "ceph.client_id").decode("ascii", "replace")
    except OSError:
        return ""


def clients(spool: Spool) -> list[str]:
    """Return the ids of the CephFS clients through which programs have renewed a lease; raises OSError."""
    return sorted({name.split("-", 2)[2] for name, _ in records(spool) if name.count("-") > 1})


def records(spool: Spool) -> Iterator[tuple[str, bytes]]:
    """Yield the records that programs of a host write when they renew; raises OSError.

    They are `lease-BOOT`, on CephFS `lease-BOOT-CLIENT`, and contain the time, seconds since boot, and a pid.
    """
    with spool.directory(STATE) as directory:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(_PREFIX)]
        for name in names:
            with suppress(FileNotFoundError):
                fd = os.open(name, _READ, dir_fd=directory)
                try:
                    yield name, os.read(fd, _LONGEST)
                finally:
                    os.close(fd)


def set_draining(spool: Spool, *, wanted: bool) -> bool:
    """Make the receiver of a host refuse new mail, or accept it again; return whether that is a change.

    It takes effect with the next renewal of its lease. Raises OSError.
    """
    if is_draining(spool) == wanted:
        return False
    if wanted:
        small_files.replace(spool, _DRAINING, b"")
    else:
        small_files.remove(spool, _DRAINING)
    spool.sync_directory(STATE)
    return True


def is_draining(spool: Spool) -> bool:
    """Return whether the receiver of a host is to refuse new mail; raises OSError."""
    return small_files.read_if_any(spool, _DRAINING) is not None


def required(hosts: Hosts, machine: Machine, path: Path, adopted: str = "") -> None:
    """Refuse to use a spool that does not belong to this machine.

    Args:
        hosts: the epochs of all hosts.
        machine: this machine.
        path: the spool, for the text.
        adopted: the host whose spool it has taken over; empty: it is its own.

    Raises:
        NoLease: it does not; the text says why, and what to do.
        OSError: it is unknown.
    """
    host = adopted or machine.host
    epoch = hosts.latest(host)
    if epoch is None or not epoch.is_of(machine):
        raise NoLease(f"{path}: {lost(epoch, host)}")
