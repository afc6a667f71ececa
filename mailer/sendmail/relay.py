"""Relays bytes between a socket and two descriptors, until the other end of the socket has closed."""

import errno
import os
import select
import socket

_PIECE = 64 * 1024


def relay(connection: socket.socket, source: int, sink: int) -> None:
    """Copy from `source` to the socket, and from the socket to `sink`.

    The end of `source` shuts down only the sending side, so that later replies still arrive. Replies are also
    read while the other end accepts no input, because it may be waiting until they are.

    Raises:
        ConnectionError: the other end closed before it had accepted all input.
    """
    # Wait for the greeting: the receiver refuses clients that send before it, and the input may be ready.
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
                # The other end has closed, and may have sent a reply that says why.
                connection.setblocking(True)
                while data := connection.recv(_PIECE):
                    write(sink, data)
                raise
    if unsent:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _wait(connection: socket.socket, source: int | None, unsent: bytes) -> tuple[bool, bool, bool]:
    """Wait; return whether the connection can be received from and sent to, and the source be read."""
    # poll(2), because it also supports regular files, which are always ready.
    poll = select.poll()
    poll.register(connection, select.POLLIN | (select.POLLOUT if unsent else 0))
    if source is not None:
        poll.register(source, select.POLLIN)
    happened = dict(poll.poll())
    about = happened.get(connection.fileno(), 0)
    return bool(about & ~select.POLLOUT), bool(about & select.POLLOUT), source in happened


def write(sink: int, data: bytes) -> None:
    """Write all of the data, however little each call to the system accepts."""
    while data:
        data = data[os.write(sink, data) :]
