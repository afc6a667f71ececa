"""Find which user's program serves a TCP connection within this host, in the tables of proc_net(5)."""

import contextlib
import socket
import struct
from pathlib import Path
from typing import Any, Protocol

from mailer.config.trust import ours

PRIVILEGED = 1024
"""Only root may listen on ports below this one."""
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


class Connection(Protocol):
    """A connected socket, or asyncio's view of one."""

    def getpeername(self) -> Any: ...  # noqa: ANN401 - typed as in the socket module

    def getsockname(self) -> Any: ...  # noqa: ANN401 - as above


def stranger(connection: Connection, spool: Path) -> int | None:
    """Return the user id of the program that serves a TCP connection, unless that user is trusted.

    Args:
        connection: the client's side.
        spool: the spool, whose owner is trusted, as are root and the current user.

    Returns:
        The user id; None if the user is trusted, or unknown because the program is in another network
        namespace or on another host.
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
    """Format an address as in the tables: words of 32 bits in this machine's byte order."""
    host, port = endpoint
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    else:
        # A socket for both families shows IPv4 addresses as ::ffff:127.0.0.1.
        packed = (bytes(10) + b"\xff\xff" if mapped else b"") + socket.inet_pton(socket.AF_INET, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
