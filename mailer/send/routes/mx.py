"""MX lookup: the hosts that take a domain's mail (RFC 5321 5.1, RFC 7505), and their usable addresses."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from mailer.send.resolver import LookupFailed, NoSuchName, Resolver

MAX_HOSTS = 5
"""The most exchangers to try in one attempt (Postfix tries 5 addresses in all: smtp_mx_address_limit)."""
MAX_ADDRESSES = 4
"""The most addresses of one exchanger to try."""
PATIENCE = 600.0
"""Seconds of one attempt after which no further address is tried. Otherwise twenty tarpits, each with five
minutes for its banner, would keep a message and its place in the run for hours."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_WITH_IPV4_BELOW = (
    ipaddress.IPv6Network("64:ff9b::/96"),  # NAT64 (RFC 6052 2.1)
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible (RFC 4291 2.5.5.1); includes ::1
)

Shuffle = Callable[[list[str]], None]


class Undeliverable(Exception):
    """The recipients' domain itself takes no mail, which is final (RFC 7505 4.2, RFC 5321 5.1)."""

    def __init__(self, reply: str) -> None:
        """Keep the reason to give to the sender, as a reply with an enhanced code."""
        super().__init__(reply)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Rules:
    """Which addresses of an exchanger may be used."""

    ipv4: bool
    ipv6: bool
    allow_private: bool
    """Connect to loopback, private and link-local addresses too."""

    def wants(self, *, six: bool) -> bool:
        """Tell whether addresses of a family are used."""
        return self.ipv6 if six else self.ipv4

    @property
    def wanted(self) -> str:
        """What a host must have, as words for a sentence: `an IPv4 address`."""
        return "an address" if self.ipv4 and self.ipv6 else f"an {'IPv4' if self.ipv4 else 'IPv6'} address"


async def exchangers(resolver: Resolver, domain: str, shuffle: Shuffle) -> list[str]:
    """Return all hosts that take a domain's mail, in the order in which to try them.

    Args:
        resolver: looks up the MX records.
        domain: the recipients' domain; an address literal such as `[192.0.2.1]` is its own exchanger.
        shuffle: puts exchangers of equal preference in random order (RFC 5321 5.1).

    Raises:
        Undeliverable: the domain does not exist, or has a null MX.
        LookupFailed: the lookup failed. The address record is never used in that case.
    """
    if domain.startswith("["):
        if _in_brackets(domain) is None:
            raise Undeliverable(f"550 5.1.2 {domain} is neither a domain nor an address")
        return [domain]
    try:
        records = await resolver.mail_exchangers(domain)
    except NoSuchName as error:
        raise Undeliverable(f"550 5.1.2 {domain}: {error}") from error
    if not records:
        return [domain]  # The implicit MX, RFC 5321 5.1.
    if all(host == "" for _, host in records):
        raise Undeliverable(f"556 5.1.10 {domain} accepts no mail (null MX)")
    hosts: list[str] = []
    for _, group in groupby(sorted(records, key=itemgetter(0)), key=itemgetter(0)):
        equals = [host for _, host in group if host]
        shuffle(equals)
        hosts += equals
    return list(dict.fromkeys(hosts))


async def addresses(resolver: Resolver, host: str, rules: Rules) -> tuple[list[str], list[str]]:
    """Return a host's addresses to try, in order, and those that are forbidden because they are not public.

    IPv6 comes first, as in RFC 6724. After that the families alternate, so that a broken one costs one
    connection attempt and not all.

    Raises:
        NoSuchName, LookupFailed: the lookup of every wanted family failed.
    """
    found = [_literal(host, rules)] if host.startswith("[") else await _lookups(resolver, host, rules)
    mixed = [address for turn in _turns(found) for address in turn]
    allowed = [address for address in mixed if rules.allow_private or _public(address)]
    return allowed[:MAX_ADDRESSES], [address for address in mixed if address not in allowed]


async def _lookups(resolver: Resolver, host: str, rules: Rules) -> list[list[str]]:
    """Look up each wanted family; a failure of one is ignored if the other has addresses."""
    wanted = [six for six in (True, False) if rules.wants(six=six)]
    found: list[list[str]] = []
    for six in wanted:
        try:
            found.append(await resolver.addresses(host, six=six))
        except (NoSuchName, LookupFailed):
            if six == wanted[-1] and not any(found):
                raise
    return found


def _literal(domain: str, rules: Rules) -> list[str]:
    """Return the address in a literal, if its family is used.

    Raises:
        NoSuchName: it contains no address; the name in an MX record may be anything.
    """
    address = _in_brackets(domain)
    if address is None:
        raise NoSuchName(f"{domain} is neither a name nor an address")
    return [address] if rules.wants(six=":" in address) else []


def _in_brackets(domain: str) -> str | None:
    """Return the address in `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3); None if there is none."""
    address = re.sub("^ipv6:", "", domain.removeprefix("[").removesuffix("]"), flags=re.IGNORECASE)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return None
    return address


def _turns(families: list[list[str]]) -> list[list[str]]:
    longest = max(map(len, families), default=0)
    return [[family[turn] for family in families if turn < len(family)] for turn in range(longest)]


def _public(address: str) -> bool:
    """Tell whether an address is public: other people's DNS must not lead mail into our network."""
    return all(meant.is_global and not meant.is_multicast for meant in _meant(ipaddress.ip_address(address)))


def _meant(address: _Address) -> tuple[_Address, ...]:
    """Return the addresses that a packet may reach: some IPv6 addresses embed an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if mapped := address.ipv4_mapped:
        return (mapped,)
    if any(address in network for network in _WITH_IPV4_BELOW):
        return address, ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return (address, address.sixtofour) if address.sixtofour else (address,)
