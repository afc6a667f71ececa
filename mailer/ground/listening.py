"""Bind TCP sockets to listen at."""

import socket


def bound_socket(address: tuple[str, int]) -> socket.socket:
    """Return a TCP socket that is bound to an IPv4 or an IPv6 address, and to no address of the other family.

    With SO_REUSEADDR, another server can bind the same port until one of them listens.

    Raises:
        OSError: as from bind(2); no socket is left open.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait until the connections of the last run have left TIME_WAIT.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found
