"""A socket that still returns the peer's last data after the peer has reset the connection."""

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer


class ReadFirst(socket.socket):
    """A socket on which a failed write waits until the data already received has been read.

    A server that rejects a message halfway sends its reply, and then resets the connection because of the
    data that it has not read. The next write then fails, and asyncio would close the socket with the reply
    still unread in it.
    """

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except ConnectionError:
            self._read_first()
            raise

    def sendmsg(self, buffers: "Iterable[ReadableBuffer]", *rest: Any) -> int:  # noqa: ANN401 - passed on
        try:
            return super().sendmsg(buffers, *rest)
        except ConnectionError:
            self._read_first()
            raise

    def _read_first(self) -> None:
        """Raise BlockingIOError if there is unread data, so that the loop reads it before it writes again."""
        if self._has_more():
            raise BlockingIOError from None

    def _has_more(self) -> bool:
        try:
            return bool(self.recv(1, socket.MSG_PEEK))
        except OSError:
            return False
