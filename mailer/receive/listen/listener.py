"""Accepts connections, and refuses them politely when the process runs out of descriptors.

When a process has no descriptor left, asyncio's own accept loop logs a traceback and sets a timer up to
`backlog` times in a row, and leaves the clients waiting. This one keeps a spare descriptor, with which it
accepts a connection to send a refusal.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from mailer.ground.shortage import SHORTAGES
from mailer.mail.reply import Reply
from mailer.receive.peers import UNIX

BACKLOG = 1024
_MAX_ACCEPTS = 64
"""Connections accepted in a row before the event loop serves other events."""
_RETRY_DELAY = 1.0
"""Seconds to wait if not even the spare descriptor can be reopened."""


class Listener:
    """One listening socket."""

    def __init__(
        self,
        listening: socket.socket,
        judge: Callable[[socket.socket, str], Reply | None],
        accept: Callable[[socket.socket, str], None],
        out_of_descriptors: Callable[[OSError], Reply],
        words: Callable[[Reply], bytes],
    ) -> None:
        """Prepare; nothing is accepted before `start`.

        Args:
            listening: bound, not listening yet; closed by `close`.
            judge: gets a new connection and its peer's address; returns the refusal, or None to accept it.
            accept: gets each accepted connection and its peer's address.
            out_of_descriptors: called each time descriptors or memory were lacking for a connection; returns
                the refusal for its client.
            words: encodes a refusal in the protocol of this listener.
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
        for _ in range(_MAX_ACCEPTS):
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in SHORTAGES:
                    raise
                self._spend_reserve(self._out_of_descriptors(error))
                return
            connection.setblocking(False)
            # The address of a client at a Unix socket is empty or meaningless.
            peer = UNIX if self._unix else str(address[0])
            reply = self._judge(connection, peer)
            if reply is None:
                self._accept(connection, peer)
            else:
                _turn_away(connection, self._words(reply))

    def _spend_reserve(self, refusal: Reply) -> None:
        """Refuse one client with the spare descriptor; pause if that cannot be reopened."""
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            with suppress(OSError):
                connection, _ = self._listening.accept()
                _turn_away(connection, self._words(refusal))
        with suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if self._reserve is None:
            self._loop.remove_reader(self._listening)
            self._retry = self._loop.call_later(_RETRY_DELAY, self._resume)


def _turn_away(connection: socket.socket, words: bytes) -> None:
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send(words)
