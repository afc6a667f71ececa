"""Connections whose client has not logged in, and which of them gives way when there are too many.

The oldest goes first: whoever wants to log in does so in a moment, and a client that only holds a place is
the one that has held it for longest. Those beyond this host go before those on it, and never in place of one.
"""

from typing import TYPE_CHECKING, Any

from mailer.receive.smtp.connection import Connection

if TYPE_CHECKING:
    import asyncio

MOST_IN_TLS = 256
"""At once, before their login. *Each costs 345 KB, most of it buffers of asyncio and OpenSSL.*"""


class Strangers:
    """Those of one server; which of them have logged in meanwhile is found out when it matters."""

    def __init__(self) -> None:
        # Dictionaries keep the order of arrival.
        self._handshakes: dict[Connection, asyncio.Future[Any]] = {}
        self._local: dict[Connection, None] = {}
        self._distant: dict[Connection, None] = {}
        self._in_tls: dict[Connection, None] = {}

    def add(self, connection: Connection, task: "asyncio.Future[Any]", *, tls: bool) -> None:
        """Take note of a new one; `task` makes its connection, and its handshake with `tls`."""
        (self._local if connection.client.local else self._distant)[connection] = None
        if tls:
            self._handshakes[connection] = task
            self.in_tls(connection)

    def in_tls(self, connection: Connection) -> None:
        """Take note that one begins a handshake; with too many of those, the oldest gives way."""
        if len(self._in_tls) >= MOST_IN_TLS:
            self._let_one_go(self._in_tls)
        self._in_tls[connection] = None

    def make_room(self, *, local: bool) -> bool:
        """Have one give way to a new connection; tell whether there was one that may be asked to."""
        return self._let_one_go(self._distant) or (local and self._let_one_go(self._local))

    def forget(self, connection: Connection) -> None:
        """One has ended."""
        self._handshakes.pop(connection, None)
        for each in (self._local, self._distant, self._in_tls):
            each.pop(connection, None)

    def _let_one_go(self, among: dict[Connection, None]) -> bool:
        while among:
            oldest = next(iter(among))
            del among[oldest]
            if oldest.known or oldest.closing:
                continue
            if (task := self._handshakes.get(oldest)) is not None and not task.done():
                task.cancel()
            else:
                oldest.give_way()
            return True
        return False
