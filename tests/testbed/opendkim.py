"""OpenDKIM's signing daemon, which a Postfix beside it asks as its milter."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import TESTBED, MissingToolError

_CONFIGURATION = """\
Mode s
Socket inet:{port}@{host}
Domain {domain}
Selector mail
KeyFile {key}
Canonicalization relaxed/relaxed
UserID root
RequireSafeKeys false
Background no
InternalHosts {hosts}
OversignHeaders From
"""


class OpenDkim:
    """A running opendkim that signs for one domain with an RSA key of 2048 bits."""

    def __init__(self, directory: Path, domain: str) -> None:
        """Raises MissingToolError: it is not unpacked."""
        self._program = TESTBED / "opendkim" / "usr" / "sbin" / "opendkim"
        if not self._program.exists():
            raise MissingToolError("opendkim")
        self.port = free_port()
        self._directory, self._domain = directory, domain
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        key, hosts = self._directory / "opendkim.private", self._directory / "opendkim.hosts"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        hosts.write_text(f"{LOOPBACK}\n")
        configuration = self._directory / "opendkim.conf"
        configuration.write_text(
            _CONFIGURATION.format(port=self.port, host=LOOPBACK, domain=self._domain, key=key, hosts=hosts)
        )
        argv = [str(self._program), "-f", "-x", str(configuration)]
        self._process = ServerProcess(argv, self._directory / "opendkim.log")
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
