"""Which hosts take mail for a domain (RFC 5321 5.1, RFC 7505), and which of their addresses may be used."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from mailer.send.resolver import LookupFailed, NoSuchName, Resolver

MAX_HOSTS = 5
"""Mail exchangers tried in one attempt (Postfix tries 5 addresses of all of them: smtp_mx_address_limit)."""
MAX_ADDRESSES = 4
"""Addresses of one exchanger that are tried."""

Shuffle = Callable[[list[str]], None]


class Undeliverable(Exception):
    """The recipients' domain itself says that it takes no mail: final (RFC 7505 4.2, RFC 5321 5.1)."""

    def __init__(self, reply: str) -> None:
        """Keep what to tell the sender, as a reply with an enhanced code."""
        super().__init__(reply)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Rules:
    """How addresses are chosen."""

    ipv4: bool
    ipv6: bool
    allow_private: bool
    """Connect to loopback, private and link-local addresses too."""


async def exchangers(resolver: Resolver, domain: str, shuffle: Shuffle) -> list[str]:
    """Return the hosts to try for a domain, in order.

    Args:
        resolver: answers, or raises LookupFailed, which passes: never the address record instead.
        domain: of the recipients; an address literal such as `[192.0.2.1]` is its own exchanger.
        shuffle: puts exchangers of equal preference in random order (RFC 5321 5.1).

    Raises:
        Undeliverable: the domain does not exist, or has a null MX.
    """
    if domain.startswith("["):
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
    return hosts[:MAX_HOSTS]


async def addresses(resolver: Resolver, host: str, rules: Rules) -> tuple[list[str], list[str]]:
    """Return a host's addresses to try, in order, and those that the rules forbid.

    IPv6 comes first, as RFC 6724 has it, and the families take turns after that, so that a broken one costs
    one attempt and not all.

    Raises:
        NoSuchName, LookupFailed: by the resolver, for every family that is wanted.
    """
    if host.startswith("["):
        found = [[host.strip("[]").removeprefix("IPv6:")]]
    else:
        found = await _lookups(resolver, host, rules)
    mixed = [address for turn in _turns(found) for address in turn]
    allowed = [address for address in mixed if rules.allow_private or _public(address)]
    return allowed[:MAX_ADDRESSES], [address for address in mixed if address not in allowed]


async def _lookups(resolver: Resolver, host: str, rules: Rules) -> list[list[str]]:
    """Look up each wanted family; one that cannot be had does not keep us from the other."""
    wanted = [six for six, on in ((True, rules.ipv6), (False, rules.ipv4)) if on]
    found: list[list[str]] = []
    for six in wanted:
        try:
            found.append(await resolver.addresses(host, six=six))
        except (NoSuchName, LookupFailed):
            if six == wanted[-1] and not any(found):
                raise
    return found


def _turns(families: list[list[str]]) -> list[list[str]]:
    longest = max(map(len, families), default=0)
    return [[family[turn] for family in families if turn < len(family)] for turn in range(longest)]


def _public(address: str) -> bool:
    """Tell whether mail may go there without the operator's word: strangers' DNS must not reach inside."""
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_global and not parsed.is_multicast
