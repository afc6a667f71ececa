"""Notify the service manager that started this program: sd_notify(3), without its library.

The protocol is one datagram of `NAME=value` lines to the socket that NOTIFY_SOCKET names. systemd and podman,
for example, set it. Without the variable nothing is sent.
"""

import contextlib
import os
import time
from collections.abc import MutableMapping
from typing import Self

_MICROSECONDS = 1_000_000
_LONGEST_STATUS = 1000
"""The most characters of a status; a datagram that is too large would be lost as a whole."""


class ServiceManager:
    """The service manager that started this program, if there is one."""

    def __init__(self, address: str = "", *, watchdog: float = 0.0) -> None:
        """Describe the manager; nothing is sent yet.

        Args:
            address: its socket, a path, or `@` and an abstract name (unix(7)); empty if there is no manager.
            watchdog: seconds without a watchdog message after which it kills this process; 0 for never.
        """
        self.address = address
        self.watchdog = watchdog
        self._last_status = ""

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Self:
        """Read its variables from the environment, and remove them: child processes must not get them."""
        address = environ.pop("NOTIFY_SOCKET", "")
        interval = environ.pop("WATCHDOG_USEC", "")
        # sd_watchdog_enabled(3): the variables may be inherited, and mean another process.
        meant = environ.pop("WATCHDOG_PID", "") or str(os.getpid())
        wanted = interval.isascii() and interval.isdigit() and meant == str(os.getpid())
        known = address if address[:1] in {"/", "@"} else ""
        return cls(known, watchdog=int(interval) / _MICROSECONDS if known and wanted else 0.0)

    @property
    def listens(self) -> bool:
        return bool(self.address)

    def ready(self, status: str = "") -> None:
        """Report that the program has started; after `reloading`, that the reload is over."""
        self._notify("READY=1", f"MAINPID={os.getpid()}", *self._status(status))

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; call `ready` afterwards, even if that failed.

        From the time, a manager distinguishes the reload that it requested from an earlier one
        (Type=notify-reload).
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify("RELOADING=1", f"MONOTONIC_USEC={now}", *self._status("reading the configuration again"))

    def stopping(self) -> None:
        """Report that the program is ending."""
        self._notify("STOPPING=1", *self._status("finishing messages in flight"))

    def alive(self, *, status: str = "") -> None:
        """Send the message that the watchdog waits for, with a status."""
        self._notify("WATCHDOG=1", *self._status(status))

    def status(self, status: str) -> None:
        """Report the status, unless it is the one reported last."""
        if status != self._last_status:
            self._notify(*self._status(status))

    def _status(self, status: str) -> tuple[str, ...]:
        if not status:
            return ()
        self._last_status = status
        return (f"STATUS={' '.join(status.split())[:_LONGEST_STATUS]}",)

    def _notify(self, *lines: str) -> None:
        if not self.address:
            return
        import socket  # noqa: PLC0415 - few runs from cron have a manager

        # A manager that has gone, or does not read, must not stop the mail.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto("\n".join(lines).encode(), _name(self.address))


def _name(address: str) -> str:
    return f"\0{address[1:]}" if address.startswith("@") else address
