"""A next hop made with the npm package `smtp-server`, which web developers test their mail with."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.arrival import Arrival
from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import node_modules, program

_PROGRAM = Path(__file__).with_suffix(".cjs")


class SmtpServer:
    """A running one; it takes mail over TLS only, by STARTTLS."""

    def __init__(self, directory: Path, chain: Path, *, jwks: str = "", authority: str = "") -> None:
        """
        Args:
            directory: a new one, which it makes.
            chain: key and certificates, PEM.
            jwks: where the keys are that sign access tokens: it then demands XOAUTH2.
            authority: the file of the certificate that it trusts there.
        """
        self.port = free_port()
        self._environment = os.environ | {"NODE_EXTRA_CA_CERTS": authority}
        self._kept = directory
        self._kept.mkdir(parents=True)
        order = {
            "modules": str(node_modules("smtp-server")),
            "directory": str(directory),
            "chain": str(chain),
            "host": LOOPBACK,
            "jwks": jwks,
            "port": self.port,
        }
        self._argv = [program("node"), str(_PROGRAM), json.dumps(order)]
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        self._process = process = ServerProcess(self._argv, self._kept / "output", env=self._environment)
        process.await_port(self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.__exit__(kind, error, trace)

    def revoke(self, token: str) -> None:
        """Refuse an access token from here on."""
        with (self._kept / "revoked").open("a") as file:
            file.write(f"{token}\n")

    def users(self) -> list[str]:
        """Whose logins brought the messages."""
        return [json.loads(file.read_text())["user"] for file in self._kept.glob("*.json")]

    def arrivals(self) -> list[Arrival]:
        """Every message that was answered with 250."""
        found = []
        for file in self._kept.glob("*.json"):
            envelope = json.loads(file.read_text())
            message = file.with_suffix(".eml").read_bytes()
            found.append(Arrival(envelope["from"], tuple(envelope["to"]), message))
        return found
