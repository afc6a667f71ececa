"""An HTTP proxy on loopback that makes tunnels (RFC 9110 9.3.6), and notes where to and for whom."""

import contextlib
import socket
import threading
from base64 import b64encode
from typing import Self

from testbed.ports import LOOPBACK


class Proxy:
    """Runs from `__enter__` to `__exit__`, at `url`; it asks for a login."""

    def __init__(self, user: str = "me", password: str = "w0rd") -> None:
        self._login = f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
        self._listener = socket.create_server((LOOPBACK, 0))
        self.url = f"http://{user}:{password}@{LOOPBACK}:{self._listener.getsockname()[1]}"
        self.tunnels: list[str] = []
        """Where each led."""
        self.refused: list[str] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            head = b""
            while b"\r\n\r\n" not in head and (data := client.recv(4096)):
                head += data
            first, *fields = head.decode().split("\r\n")
            method, target, _ = first.split(" ")
            if method != "CONNECT" or f"Proxy-Authorization: {self._login}" not in fields:
                self.refused.append(first)
                client.sendall(b"HTTP/1.1 407 no\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = target.rpartition(":")
            server = socket.create_connection((host, int(port)))
            self._open.append(server)
            self.tunnels.append(target)
            client.sendall(b"HTTP/1.1 200 ok\r\n\r\n")
            threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
            _pass_on(client, server)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
