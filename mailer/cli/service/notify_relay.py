"""Relay sd_notify(3) messages from the programs that `mailer up` starts to its own service manager.

Each program reports to `mailer up` as it would to systemd. `mailer up` combines the reports: it is ready when
every program is, its status is that of all, and it sends the watchdog message when each program that mail
needs has sent one. So if one of those hangs, the service manager restarts all of them.
"""

import fcntl
import os
import signal
import socket
import struct
from contextlib import suppress

from mailer.cli.service.manager import ServiceManager

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: the ids of process, user and group."""
_MAX_DATAGRAM = 8192
_MICROSECONDS = 1_000_000


class NotifyRelay:
    """Receives the programs' reports and notifies the service manager; without a manager it does nothing."""

    def __init__(self, above: ServiceManager) -> None:
        """Open the socket. SIGIO interrupts the caller's wait when there is something to `read`."""
        self._above = above
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._names: dict[int, str] = {}
        self._needed: set[int] = set()
        self._waiting: set[int] = set()
        """The process ids of programs that have not started, or reloaded, completely yet."""
        self._ready = False
        self._alive: set[int] = set()
        self._status: dict[int, str] = {}
        self.environ: dict[str, str] = {}
        """The environment variables that make the programs report here."""
        if not above.listens:
            return
        # Any user can send to an abstract socket name, so have the kernel add the sender's process id.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("")
        signal.signal(signal.SIGIO, lambda *_: None)
        fcntl.fcntl(self._socket, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._socket, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        name = self._socket.getsockname().removeprefix(b"\0").decode()
        self.environ = {"NOTIFY_SOCKET": f"@{name}"}
        if above.watchdog:
            self.environ["WATCHDOG_USEC"] = str(int(above.watchdog * _MICROSECONDS))

    def close(self) -> None:
        self._socket.close()

    def expect(self, pid: int, name: str, *, needed: bool) -> None:
        """Add a program that was started; `needed` if mail does not flow without it."""
        self._names[pid] = name
        self._waiting.add(pid)
        if needed:
            self._needed.add(pid)

    def forget(self, pid: int) -> None:
        """Remove a program that has ended while the others go on."""
        del self._names[pid]
        self._status.pop(pid, None)
        self._waiting.discard(pid)
        self._notify_if_ready()

    def reload(self) -> None:
        """Report that all programs are about to reload the configuration."""
        self._above.reloading()
        self._waiting |= self._names.keys()
        self._ready = False

    def read(self) -> None:
        """Read the pending reports, and notify the service manager accordingly."""
        with suppress(BlockingIOError):
            while self._above.listens:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _MAX_DATAGRAM, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
                for level, kind, value in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                        pid, _, _ = _CREDENTIALS.unpack(value)
                        if pid in self._names:
                            self._handle(pid, data.decode(errors="replace").splitlines())

    def _handle(self, pid: int, lines: list[str]) -> None:
        for line in lines:
            match line.partition("="):
                case "READY", _, "1":
                    self._waiting.discard(pid)
                case "RELOADING", _, "1":
                    self._waiting.add(pid)
                    self._ready = False
                case "WATCHDOG", _, "1":
                    self._alive.add(pid)
                case "STATUS", _, status:
                    self._status[pid] = status
        self._notify_if_ready()
        if self._alive >= self._needed:
            self._alive.clear()
            self._above.alive(status=self._words)
        else:
            self._above.status(self._words)

    @property
    def _words(self) -> str:
        return ". ".join(
            f"{name}: {self._status[pid]}" for pid, name in self._names.items() if pid in self._status
        )

    def _notify_if_ready(self) -> None:
        if not self._waiting and not self._ready:
            self._ready = True
            self._above.ready(self._words)
