"""What the programs that `mailer up` starts report, passed on to the service manager of `mailer up`.

Each program reports to us as it would to systemd. We report what is true of all: that we are ready when every
one is, a status of all, and the watchdog's sign of life when each that mail needs has given one. So one of
them that hangs has all of them restarted.
"""

import fcntl
import os
import signal
import socket
import struct
from contextlib import suppress

from mailer.cli.service_manager import ServiceManager

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: process, user, group."""
_LONGEST = 8192
_MICROSECONDS = 1_000_000


class NotifyRelay:
    """Hears the programs, and tells the manager above; without one it does nothing."""

    def __init__(self, above: ServiceManager) -> None:
        """Listen. SIGIO says that there is something to `read`."""
        self._above = above
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._names: dict[int, str] = {}
        self._needed: set[int] = set()
        self._waiting: set[int] = set()
        """Those that are not ready (again)."""
        self._ready = False
        self._alive: set[int] = set()
        self._status: dict[int, str] = {}
        self.environ: dict[str, str] = {}
        """For the programs, that they report to us."""
        if not above.listens:
            return
        # Any user can send to an abstract name: the kernel says who did.
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
        """A program was started; `needed`: mail does not flow without it."""
        self._names[pid] = name
        self._waiting.add(pid)
        if needed:
            self._needed.add(pid)

    def forget(self, pid: int) -> None:
        """A program has ended, and the others go on."""
        del self._names[pid]
        self._status.pop(pid, None)
        self._waiting.discard(pid)
        self._say_if_ready()

    def reload(self) -> None:
        """All of them are about to read the configuration again."""
        self._above.reloading()
        self._waiting |= self._names.keys()
        self._ready = False

    def read(self) -> None:
        """Read what has come, and tell what follows from it."""
        with suppress(BlockingIOError):
            while self._above.listens:
                data, ancillary, _, _ = self._socket.recvmsg(_LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
                for level, kind, value in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                        pid, _, _ = _CREDENTIALS.unpack(value)
                        if pid in self._names:
                            self._hear(pid, data.decode(errors="replace").splitlines())

    def _hear(self, pid: int, lines: list[str]) -> None:
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
        self._say_if_ready()
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

    def _say_if_ready(self) -> None:
        if not self._waiting and not self._ready:
            self._ready = True
            self._above.ready(self._words)
