"""Check host names as receivers do in EHLO (RFC 5321 4.1.1.1, 4.1.4): they want fully qualified names."""

import ipaddress
from functools import lru_cache

from mailer.mail.lazy_pattern import compile_late

_LABEL = compile_late(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# RFC 6761 6.3, RFC 6762 22.1, RFC 9476; ICANN has reserved `internal`; routers assign the others.
_PRIVATE = frozenset({"localhost", "localdomain", "local", "internal", "lan", "home", "alt", "invalid"})
_REFUSED = "and receivers refuse it in EHLO"


def fault(name: str) -> str:
    """Return why receivers refuse a name in EHLO; empty: nothing in the name itself gives a reason."""
    if name.startswith("[") and is_address(name.strip("[]").removeprefix("IPv6:")):
        return "is an address, which many receivers refuse in EHLO"
    labels = name.removesuffix(".").split(".")
    faults = (
        (is_address(name), "is an address without brackets"),
        ("_" in name, "has an underscore, which no host name may have"),
        (not all(map(_LABEL.fullmatch, labels)), "is not a host name"),
        (len(labels) < 2, "is a short name, without a domain"),
        (labels[-1].lower() in _PRIVATE, "is a name for this network only"),
        (labels[-1].isdigit(), "ends in a number, as no host name does"),
    )
    return next((f"{why}, {_REFUSED}" for wrong, why in faults if wrong), "")


def is_address(text: str) -> bool:
    """Return whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# Asked several times about the peer of each connection. (*Measured: parsing an address takes 7 us.*)
@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Return whether a host, as configured or as a socket reports it, is this host.

    That holds for `localhost` (RFC 6761 6.3) and for loopback addresses, IPv4-mapped IPv6 ones included.
    """
    return host.lower().removesuffix(".") == "localhost" or bool(loopback_address(host))


def loopback_address(host: str) -> str:
    """Return the loopback address that a host is (an IPv4-mapped one as IPv4); empty: another, or a name."""
    try:
        address = ipaddress.ip_address(host.removesuffix(".").partition("%")[0])
    except ValueError:
        return ""
    address = getattr(address, "ipv4_mapped", None) or address
    return str(address) if address.is_loopback else ""
