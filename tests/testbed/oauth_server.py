"""An OAuth 2.0 server by others: the npm package `oauth2-mock-server`, over TLS. Its tokens are JWTs."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import node_modules, program


class OAuthServer:
    """It may be stopped and started again, at the same port; a new one has new keys."""

    def __init__(self, directory: Path) -> None:
        """Args: directory: where its files are to be."""
        self._directory = directory
        self._port = free_port()
        self._process: ServerProcess | None = None
        authority = trustme.CA()
        self.authority = directory / "oauth-authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        leaf = authority.issue_cert("localhost")
        self._key, self._certificate = directory / "oauth-key.pem", directory / "oauth-certificate.pem"
        leaf.private_key_pem.write_to_path(str(self._key))
        leaf.cert_chain_pems[0].write_to_path(str(self._certificate))

    @property
    def url(self) -> str:
        return f"https://localhost:{self._port}"

    def start(self) -> None:
        main = node_modules("oauth2-mock-server") / "oauth2-mock-server" / "dist" / "oauth2-mock-server.mjs"
        argv = [program("node"), str(main), "-a", LOOPBACK, "-p", str(self._port)]
        argv += ["-k", str(self._key), "-c", str(self._certificate)]
        self._process = ServerProcess(argv, self._directory / "oauth-output", env=os.environ)
        self._process.await_port(self._port)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
