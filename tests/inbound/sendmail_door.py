"""A receiver with a `submitSocket`, and a sendmail program that submits there, by users of this host."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from testbed.relay import Relay
from testbed.sendmail import write_sendmail

CRON, STRANGER = 4711, 4712
"""The ids of two users: one that `localUsers` maps, and one that it does not."""


class Door:
    """A running receiver with a `submitSocket`, and the sendmail program for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "submit.sock"
        self.relay = Relay(
            directory,
            {
                "submitSocket": str(self.socket),
                "localUsers": [
                    {"login": str(os.getuid()), "user": "app@example.com"},
                    {"login": str(CRON), "user": "cron"},
                ],
                "originDomain": "here.example",
                "aliases": {"root": "ops@example.com"},
                "maxMessageSize": 100_000,
            },
        )
        self.sendmail = write_sendmail(directory, self.socket)

    def close(self) -> None:
        """Let no receiver run, and programs be those of a user who leaves mail in the drop directory."""
        self.relay.configure({"localUsers": [{"login": str(CRON), "user": "app@example.com"}]})
        with self.relay.serve():
            pass
        assert self.relay.mailer("pause").returncode == 0
        drop = self.relay.spool / "drop"
        self.sendmail = write_sendmail(self.directory, self.socket, uid=CRON, drop=drop)

    def run(
        self,
        *arguments: str,
        given: str | bytes = "",
        under: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run sendmail with these arguments and this standard input."""
        data = given.encode() if isinstance(given, str) else given
        return start([str(under or self.sendmail), *arguments], data, self.directory, env)

    def queued(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.relay.spool / "new").iterdir()]

    def taken(self, marker: str) -> bytes:
        """The one queued mail that has this in it; what waits in the drop directory is taken in before."""
        if any((self.relay.spool / "drop").glob("*")):
            done = self.relay.mailer_send("--once")
            assert (done.returncode, done.stderr) == (0, "")
        (found,) = [stored for stored in self.queued() if marker.encode() in stored]
        return found


def start(
    argv: list[str], given: bytes, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "HOME": str(cwd), **(env or {})}
    return subprocess.run(
        argv, input=given, capture_output=True, check=False, timeout=300, env=environment, cwd=cwd
    )


def envelope(stored: bytes) -> list[str]:
    """Sender and recipients."""
    return re.findall(
        r"^Spool-(?:Sender|Recipient): <(.*?)>", stored.decode("utf-8", "replace"), re.MULTILINE
    )


def header(stored: bytes) -> bytes:
    """The message's header as it was stored, below our block."""
    return stored.partition(b"Spool-Length: ")[2].partition(b"\r\n")[2].partition(b"\r\n\r\n")[0] + b"\r\n"
