"""The relay under test, configured and started as its operator does it: by its commands, as processes."""

import json
import os
import smtplib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mailer.config.load import OVERRIDES
from mailer.spool.directory import Spool
from testbed.clients import Server
from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import program

USERNAME = "app@example.com"
PASSWORD = "correct horse battery staple"
ADMIN_TOKEN = "correct-horse-battery-staple"
# Seconds; a command that hangs fails its test instead of hanging the run.
_PATIENCE = 300


class Relay:
    """One configuration and one spool in a directory of their own, and the commands that work on them.

    Several processes may run on it at once, as in production. Unless `configure` says otherwise, mail goes to
    the local Maildir, and senders are told nothing: a test that is not about bounces need not expect one.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, Any] | None = None, *, python: str = sys.executable
    ) -> None:
        """
        Args:
            directory: where the configuration, the spool and the programs' output go.
            settings: configuration keys to add or replace.
            python: of the environment whose programs run.
        """
        self.directory = directory
        self._mailer = (python, "-m", "mailer")
        self.mailer_send_command = mailer_send_command(python)
        self.spool = directory / "spool"
        self.config = directory / "config.json"
        self.port = free_port()
        self.http_port = free_port()
        self._settings: dict[str, Any] = {
            "smtpHost": LOOPBACK,
            "smtpPort": self.port,
            "defaultUsername": USERNAME,
            "defaultPassword": PASSWORD,
            "spoolDir": "spool",
            "enableHealthCheck": False,
            "bounce": "off",
            "adminToken": ADMIN_TOKEN,
        }
        self.stderr: int | None = None
        """A descriptor for the standard error of programs that start from now on; None: their log."""
        self._started = 0
        self.configure(settings or {})

    @property
    def server(self) -> Server:
        """Where a client submits, with the login."""
        return Server(LOOPBACK, self.port, USERNAME, PASSWORD)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Add or replace configuration keys; what runs already keeps the old ones."""
        self._settings |= settings
        self.config.touch(mode=0o600)
        self.config.write_text(json.dumps(self._settings, indent=2))

    def mailer(
        self, *arguments: str, under: Sequence[str] = (), given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `mailer ARGUMENTS` to its end.

        Args:
            arguments: of the command line, without --config.
            under: a command that runs it, for instance `faketime("+10y")`.
            given: its standard input.
        """
        return self._run([*under, *self._mailer, *arguments], given)

    def mailer_send(self, *arguments: str, under: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run `mailer-send ARGUMENTS` to its end; see `mailer`."""
        return self._run([*under, *self.mailer_send_command, *arguments])

    @contextmanager
    def serve(self, *arguments: str, under: Sequence[str] = ()) -> Iterator[ServerProcess]:
        """Run `mailer serve` while the block runs; it accepts connections when the block begins."""
        with self.starting("serve", *arguments, under=under) as process:
            process.await_port(self.port)
            yield process

    def starting(self, program: str, *arguments: str, under: Sequence[str] = ()) -> ServerProcess:
        """Start `mailer PROGRAM`, a context manager that ends it, and do not wait until it is ready."""
        return self._start([*under, *self._mailer, program, *arguments], program)

    @contextmanager
    def up(self, *arguments: str, under: Sequence[str] = ()) -> Iterator[ServerProcess]:
        """Run `mailer up` while the block runs; it accepts connections when the block begins."""
        with self._start([*under, *self._mailer, "up", *arguments], "up") as process:
            process.await_port(self.port)
            yield process

    @contextmanager
    def monitor(self, *arguments: str, under: Sequence[str] = ()) -> Iterator[ServerProcess]:
        """Run `mailer monitor` at `http_port` while the block runs; it accepts connections when it begins."""
        self.configure({"enableHealthCheck": True, "healthCheckPort": self.http_port})
        if not self.spool.exists():
            Spool.open(self.spool, create=True).close()
        with self._start([*under, *self._mailer, "monitor", *arguments], "monitor") as process:
            process.await_port(self.http_port)
            yield process

    def watch(self, *arguments: str, under: Sequence[str] = ()) -> ServerProcess:
        """Start `mailer-send --watch`, a context manager that ends it; nothing shows when it is ready."""
        return self._start([*under, *self.mailer_send_command, "--watch", *arguments], "watch")

    def connect(self) -> smtplib.SMTP:
        """A session that is logged in, for the caller to use and close."""
        connection = smtplib.SMTP(LOOPBACK, self.port, timeout=60)
        try:
            connection.login(USERNAME, PASSWORD)
        except BaseException:
            connection.close()
            raise
        return connection

    def delivered(self) -> list[bytes]:
        """The messages in the local Maildir, as its readers see them."""
        return [file.read_bytes() for file in (self.spool / "local" / "new").glob("*")]

    def _start(self, argv: Sequence[str], name: str) -> ServerProcess:
        self._started += 1
        log = self.directory / f"{self._started}-{name}.log"
        return ServerProcess(argv, log, env=self._environment(), cwd=self.directory, stderr=self.stderr)

    def _run(self, argv: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            input=given,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env=self._environment(),
            cwd=self.directory,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
        return inherited | {"MAILER_CONFIG": str(self.config)}


def mailer_send_command(python: str = sys.executable) -> list[str]:
    """The installed `mailer-send`: of the environment of this Python, if it has one."""
    beside = Path(python).with_name("mailer-send")
    return [str(beside) if beside.exists() else program("mailer-send")]
