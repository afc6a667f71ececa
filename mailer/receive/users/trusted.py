"""Identifies clients by the network that they connect from (`listeners[].trustedNetworks`).

The address is that of the TCP connection, from the kernel. Clients cannot claim another one: the PROXY
protocol and XCLIENT are not supported.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from mailer.receive.peers import is_local


@dataclass(frozen=True, slots=True)
class TrustedNetwork:
    """A network whose hosts submit as a user without a login."""

    network: IPv4Network | IPv6Network
    user: str


def user_at(peer: str, trusted: Sequence[TrustedNetwork]) -> str:
    """Return the user that an address is trusted to be; empty: none, the client must log in.

    The smallest network that contains the address counts, so that one host may be another user than the rest
    of its network.

    Args:
        peer: the address as the kernel writes it; an IPv6 address may have a zone.
        trusted: the trusted networks of the listener that the client connected to.
    """
    if not trusted or is_local(peer):
        return ""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        # The socket serves both families; a service manager may open one like that.
        address = address.ipv4_mapped
    found = [each for each in trusted if address in each.network]
    return max(found, key=lambda each: each.network.prefixlen).user if found else ""
