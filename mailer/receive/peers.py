"""Peer addresses: whether a peer is on this host, and which addresses limits count as one peer."""

import ipaddress
from functools import lru_cache

from mailer.mail.host_name import is_loopback

UNIX = "unix"
"""The peer name of clients on Unix sockets, which have no address; `unix:UID` if their user id is known."""
IMPORT, REPLAY = "import", "replay"
"""The peer name, as `import:OPERATOR`, of an operator that imports mail or sends a message again."""


def is_local(peer: str) -> bool:
    """Return whether a peer is on this host: on a Unix socket or at a loopback address."""
    return peer.partition(":")[0] == UNIX or is_loopback(peer)


@lru_cache(maxsize=256)
def source(peer: str) -> str:
    """Return the key by which limits count a peer: its address, or the /64 network of an IPv6 address.

    A customer of a provider has at least 2**64 IPv6 addresses (RFC 6177), so a single address means nothing.
    """
    if ":" not in peer:
        return peer
    try:
        address = ipaddress.IPv6Address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return peer if address.is_loopback else f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
