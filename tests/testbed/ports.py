"""Ports for servers that must be told their port instead of choosing one."""

import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Below the kernel's ephemeral range (32768 up), so that no outgoing connection of a neighbouring test takes
# the port between our probe and the server's bind.
_LOWEST, _HIGHEST = 20000, 32000
_BLOCK = 250


class _Block:
    """A range of ports that belongs to this process until it ends.

    A probe alone is not enough: two workers that draw the same port both find it free, one server then fails
    to bind, and its test talks to the other test's server (seen once in some 40,000 tests). The claim is a
    record lock on one byte of a file that all workers of this user share: a fork does not inherit it, and the
    kernel releases it with the process.
    """

    def __init__(self) -> None:
        path = Path(tempfile.gettempdir(), f"mailer-test-ports.{os.geteuid()}")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._first = self._claim()
        self._drawn = 0

    def _claim(self) -> int:
        blocks = list(range((_HIGHEST - _LOWEST) // _BLOCK))
        random.SystemRandom().shuffle(blocks)
        for block in blocks:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, block)
            except OSError:
                continue
            return _LOWEST + block * _BLOCK
        raise OSError(f"other test processes have claimed all ports between {_LOWEST} and {_HIGHEST}")

    def draw(self) -> int:
        """The next port of the block; the first one again after the last."""
        port = self._first + self._drawn % _BLOCK
        self._drawn += 1
        return port


@functools.cache
def _block_of(process: int) -> _Block:
    del process  # a fork must not draw from its parent's block
    return _Block()


def free_port() -> int:
    """A loopback port that nothing listens on, and that no other test process is given.

    Raises:
        OSError: something listens on every port of this process's block, or no block is left.
    """
    block = _block_of(os.getpid())
    for _ in range(_BLOCK):
        port = block.draw()
        with socket.socket() as probe:
            # As servers do: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port found in {_BLOCK} from {block.draw()} on")


def accepts(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections at this port, on loopback if nothing else is said."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True
