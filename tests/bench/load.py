"""Who submits and who receives."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import TESTBED, postfix_environment, program
from testbed.waiting import until

SENDER, RECIPIENT = "app@example.com", "bob@example.net"
PATIENCE = 600.0
"""Seconds for one load; a server that stands still must not hold the run."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who submits, where a login is demanded."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Load:
    """Messages to submit."""

    messages: int
    size: int = 2048
    """Octets of each."""
    clients: int = 16
    """At the same time."""
    reuse: bool = False
    """One connection for many messages instead of one for each."""
    login: Login | None = None

    def submit(self, port: int, also: Callable[[], None] = lambda: None) -> float:
        """Submit everything to a server on loopback, and return the seconds that it took.

        Args:
            port: the server's.
            also: waits for what is to be counted in.

        Raises:
            RuntimeError: some message was not accepted.
        """
        began = time.perf_counter()
        ran = subprocess.run(
            self._with_login(port) if self.login else self._plain(port),
            env=postfix_environment(),
            input=self.login.password if self.login else None,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if ran.returncode or "fatal" in ran.stderr or "warning" in ran.stderr:
            raise RuntimeError(f"the load was not accepted: {ran.stdout[-500:]}{ran.stderr[-500:]}")
        also()
        return time.perf_counter() - began

    @property
    def _sessions(self) -> int:
        """Not more than messages: smtp-source may then wait for ever."""
        return min(self.clients, self.messages)

    def _plain(self, port: int) -> list[str]:
        return [
            *(program("smtp-source"), "-s", str(self._sessions), "-m", str(self.messages)),
            *("-l", str(self.size), "-f", SENDER, "-t", RECIPIENT, *(["-d"] if self.reuse else [])),
            f"{LOOPBACK}:{port}",
        ]

    def _with_login(self, port: int) -> list[str]:
        assert self.login is not None
        return [
            *(str(_client()), "-address", f"{LOOPBACK}:{port}", "-clients", str(self._sessions)),
            *("-messages", str(self.messages), "-size", str(self.size), f"-reuse={str(self.reuse).lower()}"),
            *("-username", self.login.username, "-from", SENDER, "-to", RECIPIENT),
        ]


def _client() -> Path:
    """Build the client that logs in, once: smtp-source cannot."""
    source = Path(__file__).with_name("client.go")
    built = TESTBED / "bench" / "client"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        built.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [program("go"), "build", "-o", str(built), str(source)],
            env=os.environ | {"GOCACHE": str(TESTBED / "bench" / "cache"), "GO111MODULE": "off"},
            check=True,
        )
    return built


_COUNTED = re.compile(rb"mesg=(\d+)")


class Sink:
    """A running smtp-sink that throws away what it takes and counts it."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._log = directory / "sink.log"
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        argv = [program("smtp-sink"), *(["-u", "root"] if os.geteuid() == 0 else [])]
        argv += ["-c", f"{LOOPBACK}:{self.port}", "1000"]
        self._process = ServerProcess(argv, self._log, env=postfix_environment())
        self._process.await_port(self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.__exit__(kind, error, trace)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def taken(self) -> int:
        """How many messages have come, by smtp-sink's own count."""
        with self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 200))
            return int([b"0", *_COUNTED.findall(log.read())][-1])

    def await_taken(self, count: int) -> None:
        until(lambda: self.taken() >= count, f"{count} messages at the sink", PATIENCE)
