"""Clients that are known by the network that they connect from (`listeners[].trustedNetworks`).

The address is the kernel's word for where a TCP connection comes from. Nothing that a client says counts:
there is no PROXY protocol and no XCLIENT here.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from mailer.receive.peers import is_local


@dataclass(frozen=True, slots=True)
class TrustedNetwork:
    """Hosts that submit as a user without a login."""

    network: IPv4Network | IPv6Network
    user: str


def user_at(peer: str, trusted: Sequence[TrustedNetwork]) -> str:
    """Return whose mail it is that comes from an address; empty: nobody's, it must log in.

    The smallest network that has the address counts, so that one host may be another user than its network.

    Args:
        peer: as the kernel writes it, an IPv6 one with its zone.
        trusted: of the listener that it came to.
    """
    if not trusted or is_local(peer):
        return ""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        # At a socket of both families, which a service manager may open.
        address = address.ipv4_mapped
    found = [each for each in trusted if address in each.network]
    return max(found, key=lambda each: each.network.prefixlen).user if found else ""
