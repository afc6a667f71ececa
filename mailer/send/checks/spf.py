"""Evaluate SPF (RFC 7208), as a receiver does for mail from an address with a domain in its envelope.

Look-ups are counted as receivers count them, so that a policy that exceeds their limit is detected.
"""

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mailer.mail.reply import printable
from mailer.send.checks.spf_record import Directive, Macros, Result, Unusable, parse, policies
from mailer.send.resolver import LookupFailed, NoSuchName

MAX_LOOKUPS = 10
"""The most terms of one evaluation that need DNS (4.6.4)."""
MAX_VOID = 2
"""The most look-ups with an empty result (4.6.4)."""
MAX_NAMES = 10
"""The most mail exchangers of one `mx`, and names of one `ptr` (4.6.4)."""

Answer = TypeVar("Answer")
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of an evaluation."""

    result: Result
    why: str
    """The term that decided, or the error."""
    lookups: int = 0


class Lookup(Protocol):
    """Asks DNS; all raise NoSuchName and LookupFailed."""

    async def texts(self, name: str) -> list[str]: ...

    async def mail_exchangers(self, domain: str) -> list[tuple[int, str]]: ...

    async def addresses(self, host: str, *, six: bool) -> list[str]: ...

    async def names(self, address: str) -> list[str]: ...


async def evaluate(address: IpAddress, domain: str, lookup: Lookup, *, helo: str = "") -> Verdict:
    """Evaluate the SPF policy of a domain for mail from an address.

    Args:
        address: the source address that receivers see.
        domain: the domain of the envelope's sender, as A-labels.
        lookup: asks DNS.
        helo: our name in EHLO; only policies with the macro `%{h}` use it.
    """
    evaluation = _Evaluation(address, domain, lookup, helo)
    try:
        result, why = await evaluation.check_host(domain)
    except Unusable as unusable:
        return Verdict(Result.PERMERROR, str(unusable), evaluation.lookups)
    except LookupFailed as failed:
        return Verdict(Result.TEMPERROR, str(failed), evaluation.lookups)
    return Verdict(result, why, evaluation.lookups)


class _Evaluation:
    """One check_host() evaluation, including those of included policies."""

    def __init__(self, address: IpAddress, sender_domain: str, lookup: Lookup, helo: str) -> None:
        self._address = getattr(address, "ipv4_mapped", None) or address
        self._macros = Macros(self._address, sender_domain, helo)
        self._lookup = lookup
        self.lookups = 0
        self._void = 0

    async def check_host(self, domain: str) -> tuple[Result, str]:
        """Return the result of a domain's policy and the term that decided; raises Unusable, LookupFailed."""
        if not _is_domain(domain):
            return Result.NONE, f"{printable(domain, 100)} is not a domain"
        try:
            found = policies(await self._lookup.texts(domain))
        except NoSuchName:
            found = []
        if not found:
            return Result.NONE, f"{domain} has no SPF record"
        if len(found) > 1:
            raise Unusable(f"{domain} has {len(found)} SPF records")
        policy = parse(found[0])
        for directive in policy.directives:
            if await self._matches(directive, domain):
                return directive.result, f"{printable(directive.text, 100)} of {domain}"
        if not policy.redirect:
            return Result.NEUTRAL, f"no term of {domain} matches it"
        target = self._macros.expand(policy.redirect, domain)
        self._count()
        result, why = await self.check_host(target)
        if result is Result.NONE:
            raise Unusable(f"redirect= of {domain}: {why}")
        return result, why

    async def _matches(self, directive: Directive, domain: str) -> bool:
        if directive.mechanism == "all":
            return True
        if directive.mechanism in {"ip4", "ip6"}:
            return self._address in ipaddress.ip_network(directive.target)
        self._count()
        return await self._matches_in_dns(directive, domain)

    async def _matches_in_dns(self, directive: Directive, domain: str) -> bool:
        target = self._macros.expand(directive.target, domain) if directive.target else domain
        if directive.mechanism != "include" and not _is_domain(target):
            return False  # the expanded macro is not a domain name, so there are no records (4.8)
        match directive.mechanism:
            case "include":
                return await self._included(target, domain)
            case "exists":
                return bool(await self._answer(lambda: self._lookup.addresses(target, six=False)))
            case "a":
                return await self._has(target, directive)
            case "mx":
                return await self._has_exchanger(target, directive)
        return await self._is_named(target)

    async def _included(self, target: str, domain: str) -> bool:
        result, why = await self.check_host(target)
        if result is Result.NONE:
            raise Unusable(f"include: of {domain}: {why}")
        return result is Result.PASS

    async def _has(self, host: str, directive: Directive) -> bool:
        six = self._address.version == 6
        length = directive.six if six else directive.four
        found = await self._answer(lambda: self._lookup.addresses(host, six=six))
        return any(
            self._address in ipaddress.ip_network(f"{address}/{length}", strict=False) for address in found
        )

    async def _has_exchanger(self, target: str, directive: Directive) -> bool:
        records = await self._answer(lambda: self._lookup.mail_exchangers(target))
        if len(records) > MAX_NAMES:
            raise Unusable(f"{target} has more than {MAX_NAMES} mail exchangers")
        for _, host in sorted(records):
            if host and await self._has(host, directive):
                return True
        return False

    async def _is_named(self, target: str) -> bool:
        """Evaluate `ptr`, which should no longer be published (5.5); failed look-ups mean "no match"."""
        try:
            names = await self._lookup.names(str(self._address))
        except (NoSuchName, LookupFailed):
            return False
        for name in names[:MAX_NAMES]:
            if f".{name}".lower().endswith(f".{target}".lower()):
                try:
                    addresses = await self._lookup.addresses(name, six=self._address.version == 6)
                except (NoSuchName, LookupFailed):
                    continue
                if self._address in map(ipaddress.ip_address, addresses):
                    return True
        return False

    async def _answer(self, ask: Callable[[], Awaitable[list[Answer]]]) -> list[Answer]:
        """Make a look-up, and count it if its result is empty."""
        try:
            found = await ask()
        except NoSuchName:
            found = []
        if not found:
            self._void += 1
            if self._void > MAX_VOID:
                raise Unusable(f"more than {MAX_VOID} of its look-ups find nothing")
        return found

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise Unusable(f"it needs more than {MAX_LOOKUPS} look-ups, the most that receivers make")


def _is_domain(name: str) -> bool:
    """Tell whether check_host() accepts a name as a domain (4.3)."""
    labels = name.removesuffix(".").split(".")
    return len(labels) > 1 and len(name) <= 253 and all(0 < len(label) < 64 for label in labels)
