"""Ports for servers that must be told their port instead of choosing one."""

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the kernel's ephemeral range (32768 up), so that no outgoing connection of a neighbouring test takes
# the port between our probe and the server's bind; drawn at random, so that parallel workers seldom meet.
_LOWEST, _HIGHEST = 20000, 32000
_random = random.SystemRandom()


def free_port() -> int:
    """A loopback port that nothing listens on at this moment.

    Raises:
        OSError: a hundred draws found none.
    """
    for _ in range(100):
        port = _random.randint(_LOWEST, _HIGHEST)
        with socket.socket() as probe:
            # As servers do: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port found between {_LOWEST} and {_HIGHEST}")


def accepts(port: int) -> bool:
    """Whether something on loopback accepts connections at this port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=5).close()
    except OSError:
        return False
    return True
