"""Clients that submit marked messages at every host, and what they were told."""

import os
import smtplib
import threading
import time
from pathlib import Path
from typing import NamedTuple

from testbed.ports import LOOPBACK
from testbed.relay import PASSWORD, USERNAME

_GROUP = 250
"""Acknowledgements that are written down and synced together."""
_TEXT = "From: <app@example.com>\r\nSubject: {}\r\n\r\n" + "A line of the message.\r\n" * 20


def uptime() -> float:
    """Seconds since boot, the time of all logs of the lab."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Moment(NamedTuple):
    """A message that a host acknowledged, or whose final dot the next hop got from it."""

    at: float
    host: str
    connection: str
    mark: str


def read(file: Path) -> list[Moment]:
    """Read a log of moments; a line that was cut off is left out."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    parts = (line.split() for line in lines if line.endswith("\n"))
    return [Moment(float(at), host, connection, mark) for at, host, connection, mark in parts]


class Flow:
    """How much mail is on its way, so that no backlog grows for which a round would wait."""

    def __init__(self, delivered: Path, most: int) -> None:
        """
        Args:
            delivered: the log of the next hop.
            most: messages that were acknowledged and did not arrive yet; beyond it the clients rest.
        """
        self.stop = threading.Event()
        self.acknowledged = 0
        self.waits: list[float] = []
        """Seconds that clients waited for each acknowledgement."""
        self._most = most
        self._lines = 0
        self._delivered = delivered
        self._read = 0
        self._lock = threading.Lock()

    def count(self, seconds: float) -> None:
        with self._lock:
            self.acknowledged += 1
            self.waits.append(seconds)

    @property
    def is_full(self) -> bool:
        return self.acknowledged - self._lines >= self._most

    def look(self) -> int:
        """Return how many final dots there were."""
        with self._delivered.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        self._read += len(text)
        self._lines += text.count(b"\n")
        return self._lines


class Client(threading.Thread):
    """Submits one message after the other at one host; comes back when the connection is lost."""

    def __init__(self, host: str, port: int, name: str, log: Path, flow: Flow, pause: float) -> None:
        super().__init__(name=name, daemon=True)
        self._host, self._port, self._flow, self._pause = host, port, flow, pause
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._sent = 0
        self._lines: list[str] = []

    def run(self) -> None:
        while not self._flow.stop.is_set():
            try:
                with smtplib.SMTP(LOOPBACK, self._port, timeout=20) as session:
                    session.login(USERNAME, PASSWORD)
                    while not self._flow.stop.is_set():
                        if self._flow.is_full:
                            self._flow.stop.wait(0.02)
                        else:
                            self._submit(session)
                            if self._pause:
                                self._flow.stop.wait(self._pause)
            except (smtplib.SMTPException, OSError):
                self._flow.stop.wait(0.2)  # The host is dead, or has no lease.
        self._write()
        os.close(self._log)

    def _submit(self, session: smtplib.SMTP) -> None:
        self._sent += 1
        mark = f"{self.name}-{self._sent}"
        began = uptime()
        session.sendmail(USERNAME, [f"{mark}@example.net"], _TEXT.format(mark))
        now = uptime()
        self._lines.append(f"{now:.6f} {self._host} - {mark}\n")
        self._flow.count(now - began)
        if len(self._lines) >= _GROUP:
            self._write()

    def _write(self) -> None:
        os.write(self._log, "".join(self._lines).encode())
        os.fsync(self._log)
        self._lines.clear()
