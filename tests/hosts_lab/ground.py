"""Where the hosts have their spools: one local directory, or a mount of CephFS for each."""

import signal
import subprocess
from pathlib import Path
from typing import Protocol

from testbed.tools import program

from hosts_lab.ceph import Ceph
from hosts_lab.host import Host


class Ground(Protocol):
    """What can happen to a host's way to the directory that all share."""

    kinds: tuple[str, ...]
    """Faults that are possible here."""
    keeps_what_was_written: bool
    """Whether what a dead host wrote without a sync is there for the others."""

    def path(self, host: str) -> Path:
        """The directory, as a host sees it."""

    def proof(self, kind: str) -> tuple[str, ...]:
        """Options of `mailer hosts adopt` after a fault."""

    def fault(self, kind: str, host: Host) -> None:
        """Do to a host's mount what belongs to a fault of its programs."""

    def heal(self, kind: str, host: Host) -> None:
        """Undo that as far as it can be, for programs that still run."""

    def renew(self, host: str) -> None:
        """Give the host, whose programs have ended, a mount that works."""


class Local:
    """One local directory. A host that is cut off cannot renew its lease, but all else works for it."""

    kinds = ("kill", "stop", "partition", "wrong")
    keeps_what_was_written = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, host: str) -> Path:
        del host
        return self._directory

    def proof(self, kind: str) -> tuple[str, ...]:
        del kind
        return ("--off",)

    def fault(self, kind: str, host: Host) -> None:
        """Make `state/`, where leases are, read-only for the programs of the host."""
        if kind == "partition":
            state = str(host.spool / "state")
            for each in host.programs:
                _within(each.pid, "mount", "--bind", state, state)
                _within(each.pid, "mount", "-o", "remount,bind,ro", state)

    def heal(self, kind: str, host: Host) -> None:
        if kind == "partition":
            for each in host.programs:
                _within(each.pid, "umount", str(host.spool / "state"))

    def renew(self, host: str) -> None:
        """Nothing is broken."""


class Shared:
    """CephFS. Who adopts evicts, except where the operator is wrong and the host still runs."""

    kinds = ("kill", "stop", "partition", "wrong")
    keeps_what_was_written = False

    def __init__(self, ceph: Ceph, directory: str = "mail") -> None:
        self._ceph, self._directory = ceph, directory

    def path(self, host: str) -> Path:
        return self._ceph.path(host) / self._directory

    def proof(self, kind: str) -> tuple[str, ...]:
        return ("--off",) if kind == "wrong" else ("--evict-with", self._ceph.command)

    def fault(self, kind: str, host: Host) -> None:
        match kind:
            case "kill":
                self._ceph.kill(host.name)
            case "stop":
                self._ceph.signal(host.name, signal.SIGSTOP)
            case "partition":
                self._ceph.link(host.name, "down")

    def heal(self, kind: str, host: Host) -> None:
        match kind:
            case "stop":
                self._ceph.signal(host.name, signal.SIGCONT)
            case "partition":
                self._ceph.link(host.name, "up")

    def renew(self, host: str) -> None:
        self._ceph.kill(host)
        self._ceph.mount(host)


def _within(pid: int, *command: str) -> None:
    """Run a command in the mount namespace of a process."""
    subprocess.run([program("nsenter"), "--mount", f"--target={pid}", *command], check=True)
