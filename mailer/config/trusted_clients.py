"""Clients that need no password: local users (`localUsers`), and hosts in `listeners[].trustedNetworks`.

A printer that cannot log in is identified by its address, which any host in its network can take. Therefore
only networks under one owner's control may be trusted, and each has a user, with its senders and limits.
"""

import grp
import ipaddress
import pwd
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network

_WIDEST = {4: 8, 6: 7}
"""Shortest allowed prefixes by IP version: 10.0.0.0/8 and fc00::/7 are the largest private networks."""
_PRIVATE_4 = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")))
"""RFC 1918 and RFC 3927. Not 100.64.0.0/10 (RFC 6598), which unrelated customers share."""
_PRIVATE_6 = tuple(map(IPv6Network, ("fc00::/7", "fe80::/10")))
"""RFC 4193 (unique local) and link-local."""
_NEVER = {
    "127.0.0.0/8": "is this host itself, whose programs use submitSocket",
    "::1/128": "is this host itself, whose programs use submitSocket",
    "224.0.0.0/4": "has multicast addresses, which no client has",
    "ff00::/8": "has multicast addresses, which no client has",
}
_NO_NETWORK = "is not a network; write one as 192.168.7.0/24 or fd00:7::/64"
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def network(text: str) -> Network:
    """Parse a network that may be trusted.

    Raises:
        ValueError: it is not a network, or must not be trusted; the text says why, and what to write.
    """
    if "%" in text:  # a zone (RFC 4007), which names one of this host's interfaces
        raise ValueError(_NO_NETWORK)
    try:
        found = ipaddress.ip_network(text, strict=False)
        exact = ipaddress.ip_interface(text).ip
    except ValueError:
        raise ValueError(_NO_NETWORK) from None
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        mapped = found.network_address.ipv4_mapped
        raise ValueError(f"is an IPv4 network written as IPv6; write {mapped}/{found.prefixlen - 96}")
    if exact != found.network_address:
        raise ValueError(f"has bits set behind its prefix; write {found}, or {exact} for that host alone")
    widest = _WIDEST[found.version]
    if found.prefixlen < widest:
        raise ValueError(f"is larger than any network of one owner: at least /{widest} is needed")
    for other, why in _NEVER.items():
        if found.version == (never := ipaddress.ip_network(other)).version and found.overlaps(never):
            raise ValueError(why)
    return found


def is_private(found: Network) -> bool:
    """Return whether a network has private addresses, which are not routed on the Internet."""
    if isinstance(found, IPv4Network):
        return any(found.subnet_of(each) for each in _PRIVATE_4)
    return any(found.subnet_of(each) for each in _PRIVATE_6)


def local_uid(login: str) -> int | None:
    """Return the user id of a login; a number is returned as is. None: this host has no such login."""
    if _is_number(login):
        return int(login)
    try:
        return pwd.getpwnam(login).pw_uid
    except (KeyError, ValueError):
        return None


def local_gid(group: str) -> int | None:
    """Return the id of a group; a number is returned as is. None: this host has no such group."""
    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
