"""A service manager's notify socket, as systemd has one: what programs report to it."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.waiting import until


class NotifySocket:
    """Collects datagrams; a context manager that closes the socket."""

    def __init__(self, directory: Path | None = None) -> None:
        """Args: directory: where its name goes; None: it has an abstract one."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(directory / "notify") if directory else "")
        self._got: list[str] = []
        self._read = 0

    @property
    def address(self) -> str:
        """As NOTIFY_SOCKET has it."""
        name = self._socket.getsockname()
        return name if isinstance(name, str) else f"@{name.removeprefix(bytes(1)).decode()}"

    def got(self) -> list[str]:
        """All datagrams so far."""
        try:
            while True:
                self._got.append(self._socket.recv(65536).decode())
        except BlockingIOError:
            return self._got

    def next_with(self, words: str) -> str:
        """Wait for a datagram with these words after the last one that this returned."""

        def found() -> str:
            for at in range(self._read, len(self.got())):
                if words in self._got[at]:
                    self._read = at + 1
                    return self._got[at]
            return ""

        return until(found, f"a report with {words!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
