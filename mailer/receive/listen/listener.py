"""Accepts connections, also when no descriptor is left to accept them with.

asyncio's own accept loop, when a process has no descriptor left, logs a traceback and sets a timer up to
`backlog` times in a row, and leaves the clients waiting. This one keeps a descriptor in reserve to tell them.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.peers import UNIX

BACKLOG = 1024
_BURST = 64
"""Connections taken in one go, before others have their turn."""
_RETRY = 1.0
"""Seconds to wait when not even the reserve helps."""


class Listener:
    """One listening socket."""

    def __init__(
        self,
        listening: socket.socket,
        judge: Callable[[socket.socket, str], Reply | None],
        accept: Callable[[socket.socket, str], None],
        out_of_descriptors: Callable[[OSError], None],
        words: Callable[[Reply], bytes] = replies.wire,
    ) -> None:
        """Make ready; nothing is accepted before `start`.

        Args:
            listening: bound, not listening yet; closed by `close`.
            judge: given a new connection and its peer's address, the reply that turns it away, or None.
            accept: takes a connection that was not turned away, and its peer's address.
            out_of_descriptors: told each time descriptors or memory were lacking for a connection.
            words: writes the reply to one that is turned away, in the protocol that is spoken here.
        """
        self._listening = listening
        self._unix = listening.family == socket.AF_UNIX
        self._judge = judge
        self._accept = accept
        self._out_of_descriptors = out_of_descriptors
        self._words = words
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._reserve: int | None = None

    def start(self) -> None:
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._listening.setblocking(False)
        self._listening.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        self._loop.remove_reader(self._listening)
        if self._retry is not None:
            self._retry.cancel()
        self._listening.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _resume(self) -> None:
        self._loop.add_reader(self._listening, self._accept_burst)

    def _accept_burst(self) -> None:
        for _ in range(_BURST):
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in {EMFILE, ENFILE, ENOBUFS, ENOMEM}:
                    raise
                self._out_of_descriptors(error)
                self._spend_reserve()
                return
            connection.setblocking(False)
            # A client at a Unix socket has no address, or one that says nothing.
            peer = UNIX if self._unix else str(address[0])
            reply = self._judge(connection, peer)
            if reply is None:
                self._accept(connection, peer)
            else:
                _turn_away(connection, self._words(reply))

    def _spend_reserve(self) -> None:
        """Tell one client to come back, on the reserve's descriptor; without it, pause."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            with suppress(OSError):
                connection, _ = self._listening.accept()
                _turn_away(connection, self._words(replies.TOO_MANY_CONNECTIONS))
        with suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if self._reserve is None:
            self._loop.remove_reader(self._listening)
            self._retry = self._loop.call_later(_RETRY, self._resume)


def _turn_away(connection: socket.socket, words: bytes) -> None:
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send(words)
