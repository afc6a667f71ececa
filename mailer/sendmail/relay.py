"""Bytes both ways between a socket and two descriptors, until the socket's other end has closed."""

import errno
import os
import select
import socket

_PIECE = 64 * 1024


def relay(connection: socket.socket, source: int, sink: int) -> None:
    """Pass on what comes from `source` to the socket, and from the socket to `sink`.

    The end of `source` is passed on; what the other end then says still arrives. Its replies are read also
    while it takes no more of ours: it may be waiting for that.

    Raises:
        ConnectionError: the other end has closed before it took everything.
    """
    # The receiver turns away who speaks before its banner, and what we were given may all be there already.
    write(sink, connection.recv(_PIECE))
    connection.setblocking(False)
    unsent, ended = b"", False
    while True:
        can_receive, can_send, can_read = _wait(connection, None if unsent or ended else source, unsent)
        if can_receive:
            if not (data := connection.recv(_PIECE)):
                break
            write(sink, data)
        if can_read:
            unsent = os.read(source, _PIECE)
            if not unsent:
                ended = True
                connection.shutdown(socket.SHUT_WR)
        elif can_send:
            try:
                unsent = unsent[connection.send(unsent) :]
            except ConnectionError:
                # It has closed, and may have said why.
                connection.setblocking(True)
                while data := connection.recv(_PIECE):
                    write(sink, data)
                raise
    if unsent:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _wait(connection: socket.socket, source: int | None, unsent: bytes) -> tuple[bool, bool, bool]:
    """Return whether the connection can be received from and sent to, and the source read."""
    # poll(2), which knows regular files, too: they are always ready.
    poll = select.poll()
    poll.register(connection, select.POLLIN | (select.POLLOUT if unsent else 0))
    if source is not None:
        poll.register(source, select.POLLIN)
    happened = dict(poll.poll())
    about = happened.get(connection.fileno(), 0)
    return bool(about & ~select.POLLOUT), bool(about & select.POLLOUT), source in happened


def write(sink: int, data: bytes) -> None:
    """Write all of it, however much is taken at once."""
    while data:
        data = data[os.write(sink, data) :]
