"""Check `routes` in a configuration that loads; called by `checks`."""

from collections.abc import Iterator

from mailer.config.hops import by_name
from mailer.config.model import Config
from mailer.config.problem import Problem
from mailer.config.routing import RouteRule, listed
from mailer.mail.patterns import can_match
from mailer.mail.reply import printable


def refusals(config: Config) -> Iterator[Problem]:
    """Yield rules that are invalid."""
    known = {*by_name(config.every_provider)}
    for at, rule in enumerate(config.routes):
        where = f"$.routes[{at}]"
        yield from _destination(rule, where, known)
        yield from _patterns(rule, where)
        if rule.header and (fault := rule.header.fault):
            yield Problem(f"{where}.header", fault)


def _destination(rule: RouteRule, where: str, known: set[str]) -> Iterator[Problem]:
    if len(rule.destinations) != 1:
        said = " and ".join(rule.destinations) or "none"
        yield Problem(where, f'needs one of "provider", "direct", "local" and "hold", and has {said}')
        return
    if rule.provider and rule.provider not in known:
        names = ", ".join(printable(name) for name in sorted(known)) or "none (forwardProviders)"
        yield Problem(f"{where}.provider", f"names no provider that is configured; there is: {names}")
    if rule.fallback and not (rule.provider or rule.direct):
        yield Problem(f"{where}.fallback", 'goes with "provider" or "direct"')


def _patterns(rule: RouteRule, where: str) -> Iterator[Problem]:
    for pattern in listed(rule.sender):
        domain = pattern.removeprefix("@")
        if pattern != "<>" and not (can_match(pattern) if "@" in domain else _is_domain(domain)):
            right = 'an address, a domain, ".example.com" for all below, "*" or "<>"'
            yield Problem(f"{where}.sender", f"takes {right}")
    for pattern in listed(rule.recipient_domain):
        if "@" in pattern or not _is_domain(pattern):
            right = 'a domain, ".example.com" for all below, or "*"'
            yield Problem(f"{where}.recipientDomain", f"takes {right}")


def _is_domain(pattern: str) -> bool:
    """Return whether a pattern is `*`, a domain, or stands for all subdomains of one."""
    below = pattern.removeprefix("*").removeprefix(".") if pattern.startswith(("*.", ".")) else pattern
    return pattern == "*" or can_match(f"any@{below}")


def warnings(config: Config) -> Iterator[Problem]:
    """Yield rules that no mail can reach, and rules whose provider is not in use."""
    for at, rule in enumerate(config.routes):
        where = f"$.routes[{at}]"
        earlier = next((to for to in range(at) if _covers(config.routes[to], rule)), None)
        if earlier is not None:
            every = "" if config.routes[earlier].conditions else ", and matches all mail"
            yield Problem(where, f"is never reached: routes[{earlier}] comes first{every}; move it up")
        if rule.provider and not config.forward_smtp:
            yield Problem(f"{where}.provider", "is not used while forwardSMTP is off: such mail waits")


def _covers(earlier: RouteRule, later: RouteRule) -> bool:
    """Return whether a rule matches everything that a later one does; only equal conditions are compared."""
    demanded = later.conditions
    return all(demanded.get(key) == wanted for key, wanted in earlier.conditions.items())
