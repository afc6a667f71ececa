"""Peers: whether one is on this host, and what limits count as one peer."""

import ipaddress

from mailer.mail.host_name import is_loopback

UNIX = "unix"
"""The peer's name on a Unix socket, which has no address; `unix:UID` where it is asked who connects."""


def is_local(peer: str) -> bool:
    """Tell whether a peer, as the kernel names it, is on this host: at a Unix socket, or at loopback."""
    return peer.partition(":")[0] == UNIX or is_loopback(peer)


def source(peer: str) -> str:
    """Return what counts as one peer for limits: an address, or the /64 network of an IPv6 one.

    A customer gets 2**64 addresses at least (RFC 6177), so that one of them says nothing.
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
