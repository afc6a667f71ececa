"""One of several hosts: its configuration, its machine id, and its two programs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed import hosts
from testbed.machines import machine

if TYPE_CHECKING:
    from testbed.process import ServerProcess

SESSIONS = 4
CONCURRENCY = 16


class Host(hosts.Host):
    """The relay of one of several hosts, on a machine of its own."""

    def __init__(self, directory: Path, name: str, shared: Path, hop: int) -> None:
        super().__init__(directory, name, shared, hop)
        self.configure(
            {
                "hostname": f"{name}.example.com",
                "sending": {"maxSessionsPerHop": SESSIONS, "concurrency": CONCURRENCY},
            }
        )
        self.here = machine(directory, f"{shared}-{name}")
        self.programs: list[ServerProcess] = []

    def start(self) -> None:
        """Start both programs, and return when the receiver accepts connections."""
        receiver = self.starting("serve", under=self.here)
        self.programs = [receiver, self.watch(under=self.here)]
        receiver.await_port(self.port)

    def signal(self, number: signal.Signals) -> None:
        for program in self.programs:
            program.signal(number)

    def kill(self) -> None:
        """End both programs as a power cut would."""
        self.signal(signal.SIGKILL)
        for program in self.programs:
            program.wait()
        self.programs = []

    def end(self) -> list[int]:
        """End both programs as an operator would; return their exit codes."""
        ended = [program.stop() for program in self.programs]
        self.programs = []
        return ended

    def adopting(self, host: str, *how: str) -> subprocess.Popen[str]:
        """Start `mailer hosts adopt HOST`."""
        return subprocess.Popen(
            [*self.here, sys.executable, "-m", "mailer", "hosts", "adopt", host, *how],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=os.environ | {"MAILER_CONFIG": str(self.config)},
        )

    def listed(self) -> Iterator[dict[str, Any]]:
        """What `mailer spool ls` shows of all hosts."""
        done = self.mailer("spool", "ls", "--json", under=self.here)
        assert done.returncode == 0, done.stderr
        return map(json.loads, done.stdout.splitlines())
