"""Tracks connections before their login, and closes the oldest when there are too many.

A real client logs in within a moment, so the oldest connection is the likeliest to be one that only holds a
slot. A remote client makes room for any new client; a local one does so only for another local client, and
only if there is no remote one.
"""

from typing import TYPE_CHECKING, Any

from mailer.receive.smtp.connection import Connection

if TYPE_CHECKING:
    import asyncio

MAX_IN_TLS = 256
"""Connections in TLS before their login. *Each costs 345 KB, mostly buffers of asyncio and OpenSSL.*"""


class Unauthenticated:
    """The unauthenticated connections of one server.

    Connections that have logged in since stay listed until room is needed, and are then skipped.
    """

    def __init__(self) -> None:
        # Dictionaries keep insertion order, which is the order of arrival.
        self._handshakes: dict[Connection, asyncio.Future[Any]] = {}
        self._local: dict[Connection, None] = {}
        self._distant: dict[Connection, None] = {}
        self._in_tls: dict[Connection, None] = {}

    def add(self, connection: Connection, task: "asyncio.Future[Any]", *, tls: bool) -> None:
        """Add a new connection; `task` sets it up, including its handshake if `tls`."""
        (self._local if connection.client.local else self._distant)[connection] = None
        if tls:
            self._handshakes[connection] = task
            self.in_tls(connection)

    def in_tls(self, connection: Connection) -> None:
        """Note that a connection begins a handshake; if there are too many of those, close the oldest."""
        if len(self._in_tls) >= MAX_IN_TLS:
            self._let_one_go(self._in_tls)
        self._in_tls[connection] = None

    def make_room(self, *, local: bool) -> bool:
        """Close a connection in favour of a new one; return whether there was one to close."""
        return self._let_one_go(self._distant) or (local and self._let_one_go(self._local))

    def forget(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self._handshakes.pop(connection, None)
        for each in (self._local, self._distant, self._in_tls):
            each.pop(connection, None)

    def _let_one_go(self, among: dict[Connection, None]) -> bool:
        while among:
            oldest = next(iter(among))
            del among[oldest]
            if oldest.authenticated or oldest.closing:
                continue
            if (task := self._handshakes.get(oldest)) is not None and not task.done():
                task.cancel()
            else:
                oldest.give_way()
            return True
        return False
