"""Find and check the addresses that our mail comes from, as receivers see them.

A host behind NAT cannot find them: its own address is not the one that others see, so the operator has to
name it.
"""

import errno
import ipaddress
import socket
from collections.abc import Sequence

from mailer.mail.finding import Finding, Grade
from mailer.send.checks import name_trouble
from mailer.send.checks.spf import IpAddress, Lookup
from mailer.send.resolver import LookupFailed, NoSuchName

# Reserved for documentation (RFC 5737, RFC 3849): routed like any public address, but never assigned.
_SOMEWHERE = {4: "198.51.100.1", 6: "2001:db8::1"}


def chosen_by_the_kernel(version: int) -> IpAddress | None:
    """Return the source address of a connection to a public address; None: there is no route.

    Connecting a UDP socket selects the source address and sends nothing.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_SOMEWHERE[version], 25))
            return ipaddress.ip_address(probe.getsockname()[0])
    except OSError as error:
        if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            return None
        raise


def describe(addresses: Sequence[IpAddress], *, named: bool) -> Finding:
    """Report which addresses mail comes from.

    Args:
        addresses: named by the operator, or chosen by the kernel.
        named: whether the operator named them.
    """
    words = ", ".join(map(str, addresses))
    if named:
        return Finding(words, "egress", Grade.OK, "named with --egress")
    if not addresses:
        todo = "set up a default route; or name the address that others see: --egress IP"
        return Finding("this host", "egress", Grade.PROBLEM, "there is no route to the Internet", todo)
    if not public(addresses):
        found = "no public address, so receivers see another one, which this host cannot find out (NAT)"
        todo = "name it with --egress IP, so that PTR and SPF can be checked"
        return Finding(words, "egress", Grade.WARNING, found, todo)
    return Finding(words, "egress", Grade.OK, "the source address of connections to the Internet")


def public(addresses: Sequence[IpAddress]) -> list[IpAddress]:
    """Return the public ones among the addresses."""
    return [address for address in addresses if address.is_global]


async def check_names(address: IpAddress, hostname: str, lookup: Lookup) -> Finding:
    """Check that the address has a PTR record with our name, and the name this address, as receivers do.

    Args:
        address: the address that mail comes from.
        hostname: our name in EHLO.
        lookup: asks DNS.
    """
    about, todo = str(address), f"ask the owner of the address (hoster) to set its PTR record to {hostname}"
    try:
        names = await lookup.names(about)
    except NoSuchName:
        names = []
    except LookupFailed as failed:
        return Finding(
            about, "ptr", Grade.UNKNOWN, f"could not be looked up: {failed}", name_trouble.todo(failed)
        )
    if not names:
        found = "no PTR record: large receivers refuse mail from it"
        return Finding(about, "ptr", Grade.PROBLEM, found, todo)
    if not (confirmed := [name for name in names if await _has(name, address, lookup)]):
        found = f"its PTR record is {', '.join(names)}, which does not resolve to it"
        todo = f"give {hostname} an address record with {address}, and {todo}"
        return Finding(about, "ptr", Grade.PROBLEM, found, todo)
    if hostname.lower() not in [name.lower() for name in confirmed]:
        found = f"its PTR record is {', '.join(confirmed)}, but our name in EHLO is {hostname}"
        todo = f"set hostname (or directDelivery.ehloDomain) to {confirmed[0]}"
        return Finding(about, "ptr", Grade.WARNING, found, todo)
    return Finding(about, "ptr", Grade.OK, f"its PTR record is {hostname}, which resolves to it")


async def _has(name: str, address: IpAddress, lookup: Lookup) -> bool:
    try:
        found = await lookup.addresses(name, six=address.version == 6)
    except (NoSuchName, LookupFailed):
        return False
    return address in map(ipaddress.ip_address, found)
