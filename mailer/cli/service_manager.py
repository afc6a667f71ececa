"""Notifications to the service manager that started us, and its wishes: sd_notify(3), without its library.

The protocol is one datagram of `NAME=value` lines to the socket that NOTIFY_SOCKET names; systemd and podman,
for two, set it. Without the variable nothing is sent.
"""

import contextlib
import os
import time
from collections.abc import MutableMapping
from typing import Self

_MICROSECONDS = 1_000_000
_LONGEST_STATUS = 1000
"""Characters; a datagram that is too large would be lost whole."""


class ServiceManager:
    """The one that started this program, or none."""

    def __init__(self, address: str = "", *, watchdog: float = 0.0) -> None:
        """Send nothing yet.

        Args:
            address: where its socket is, a path, or `@` and an abstract name (unix(7)); empty: there is none.
            watchdog: seconds without a sign of life after which it kills us; 0: it waits for none.
        """
        self.address = address
        self.watchdog = watchdog
        self._told = ""

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Self:
        """Read what it says in the environment, and take that out: programs that we start are not us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        interval = environ.pop("WATCHDOG_USEC", "")
        # sd_watchdog_enabled(3): it may mean another process, whose environment we inherited.
        meant = environ.pop("WATCHDOG_PID", "") or str(os.getpid())
        wanted = interval.isascii() and interval.isdigit() and meant == str(os.getpid())
        known = address if address[:1] in {"/", "@"} else ""
        return cls(known, watchdog=int(interval) / _MICROSECONDS if known and wanted else 0.0)

    @property
    def listens(self) -> bool:
        return bool(self.address)

    def ready(self, status: str = "") -> None:
        """Say that we work; after `reloading`, that we do so with what was read."""
        self._notify("READY=1", f"MAINPID={os.getpid()}", *self._status(status))

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends it, whatever came of it.

        By the time a manager tells a reload that it asked for from an earlier one (Type=notify-reload).
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify("RELOADING=1", f"MONOTONIC_USEC={now}", *self._status("reading the configuration again"))

    def stopping(self, status: str = "finishing what is in flight") -> None:
        """Say that we end."""
        self._notify("STOPPING=1", *self._status(status))

    def alive(self, *, status: str = "") -> None:
        """Give the sign of life that the watchdog waits for, and say what we do."""
        self._notify("WATCHDOG=1", *self._status(status))

    def status(self, status: str) -> None:
        """Say what we do, if that is not what was said last."""
        if status != self._told:
            self._notify(*self._status(status))

    def _status(self, status: str) -> tuple[str, ...]:
        if not status:
            return ()
        self._told = status
        return (f"STATUS={' '.join(status.split())[:_LONGEST_STATUS]}",)

    def _notify(self, *lines: str) -> None:
        if not self.address:
            return
        import socket  # noqa: PLC0415 - few runs of cron have a manager

        # A manager that is gone, or does not read, must not stop the mail.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto("\n".join(lines).encode(), _name(self.address))


def _name(address: str) -> str:
    return f"\0{address[1:]}" if address.startswith("@") else address
