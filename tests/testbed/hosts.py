"""Hosts that share `spoolDir`: a relay for each, on a machine of its own."""

import json
import smtplib
from collections import Counter
from pathlib import Path

from outbound.hostile import Server

from testbed.faketime import faketime
from testbed.machines import machine
from testbed.ports import LOOPBACK
from testbed.relay import Relay


class Host(Relay):
    """The relay of one of several hosts, on a machine of its own."""

    def __init__(self, directory: Path, name: str, shared: Path, hop: int) -> None:
        directory.mkdir()
        super().__init__(
            directory,
            {
                "spoolDir": str(shared),
                "host": name,
                "forwardSMTP": True,
                "forwardProviders": [{"host": LOOPBACK, "port": hop}],
            },
        )
        self.name = name
        self.spool = shared / name
        self.here = machine(directory, f"{directory.name}-{name}")

    def hosts(self, *arguments: str, fast: bool = False) -> tuple[int, str, str]:
        """Run `mailer hosts ARGUMENTS` on this machine; return its exit code and what it printed.

        Args:
            arguments: of the command line.
            fast: by a clock that is ten times as fast, where it waits for programs that have ended before.
        """
        clock = faketime("+0 x10") if fast else ()
        done = self.mailer("hosts", *arguments, under=(*self.here, *clock))
        return done.returncode, done.stdout, done.stderr

    def rows(self) -> dict[str, dict[str, object]]:
        """What `mailer hosts --json` says of each host."""
        code, said, _ = self.hosts("--json")
        assert code == 0
        return {row["host"]: row for row in map(json.loads, said.splitlines())}


def send(host: Host, mark: str) -> bool:
    """Submit a message; tell whether it was accepted."""
    try:
        with host.connect() as client:
            client.sendmail("app@example.com", ["bob@example.net"], f"Subject: {mark}\r\n\r\nhello\r\n")
    except (OSError, smtplib.SMTPException):
        return False
    return True


def deliveries(hop: Server, *, accepted: bool = True) -> Counter[str]:
    """How often the hop has taken each message, by its subject; or got its final dot and did not take it."""
    seen = (message for message in hop.messages if message.accepted == accepted)
    lines = (line for message in seen for line in message.body.splitlines())
    return Counter(line[9:].decode() for line in lines if line.startswith(b"Subject: "))
