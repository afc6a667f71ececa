"""Whose program is at the other end of a connection within this host, as the kernel says (proc_net(5))."""

import contextlib
import socket
import struct
from pathlib import Path
from typing import Any, Protocol

from mailer.config.trust import ours

PRIVILEGED = 1024
"""Ports below are root's alone to listen at."""
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


class Connection(Protocol):
    """A connected socket, or asyncio's view of one."""

    def getpeername(self) -> Any: ...  # noqa: ANN401 - as the socket module has it

    def getsockname(self) -> Any: ...  # noqa: ANN401 - the same


def stranger(connection: Connection, spool: Path) -> int | None:
    """Return the user id of the program that serves a TCP connection, unless it may be one of ours.

    Args:
        connection: from this side.
        spool: its owner's programs are ours, and so are root's and the caller's.

    Returns:
        None also if it is not known: the program is in another network namespace, or on another host.
    """
    user, trusted = _user(connection), set(ours())
    with contextlib.suppress(OSError):
        trusted.add(spool.stat().st_uid)
    return None if user in trusted else user


def _user(connection: Connection) -> int | None:
    server, client = connection.getpeername()[:2], connection.getsockname()[:2]
    pairs = {(_hexadecimal(server, mapped), _hexadecimal(client, mapped)) for mapped in (False, True)}
    for table in _TABLES:
        with contextlib.suppress(OSError), table.open() as lines:
            for line in lines:
                words = line.split()
                if (words[1], words[2]) in pairs:
                    return int(words[7])
    return None


def _hexadecimal(endpoint: tuple[str, int], mapped: bool) -> str:  # noqa: FBT001 - a detail of the kernel's
    """Write an address as the tables do: words of 32 bits, as this machine would read them."""
    host, port = endpoint
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    else:
        # A socket for both families has IPv4 addresses as ::ffff:127.0.0.1.
        packed = (bytes(10) + b"\xff\xff" if mapped else b"") + socket.inet_pton(socket.AF_INET, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
