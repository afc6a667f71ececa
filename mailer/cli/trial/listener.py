"""Whose program is at the other end of a connection within this host, as the kernel says (proc_net(5))."""

import contextlib
import socket
import struct
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def user_at_the_other_end(connection: socket.socket) -> int | None:
    """Return the user id of the program that serves a TCP connection.

    Returns:
        None if it is not known: the program is in another network namespace, or on another host.
    """
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
