"""Bytes both ways between a socket and two descriptors, until the socket's other end has closed."""

import os
import selectors
import socket

_PIECE = 64 * 1024


def relay(connection: socket.socket, source: int, sink: int) -> None:
    """Pass on what comes from `source` to the socket, and from the socket to `sink`.

    The end of `source` is passed on; what the other end then says still arrives.
    """
    # The receiver turns away who speaks before its banner, and what we were given may all be there already.
    os.write(sink, connection.recv(_PIECE))
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        try:
            selector.register(source, selectors.EVENT_READ)
        except PermissionError:  # epoll takes no regular file: all of it is there
            while data := os.read(source, _PIECE):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        while True:
            for key, _ in selector.select():
                if key.fileobj is connection:
                    if not (data := connection.recv(_PIECE)):
                        return
                    os.write(sink, data)
                elif data := os.read(source, _PIECE):
                    connection.sendall(data)
                else:
                    selector.unregister(source)
                    connection.shutdown(socket.SHUT_WR)
