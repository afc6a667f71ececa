"""Directions: which way the configuration sends a recipient's mail.

The runner, its dry run and `mailer route` all use this module, so their answers agree. A way is what one rule
of `routes` demands, or what is done with mail that no rule matches. It names its targets in groups; the
targets of a group share the mail by weight. `plan` makes routes of them.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import partial

import msgspec

from mailer.config.hops import Provider, by_name
from mailer.config.model import Config
from mailer.config.routing import RouteRule
from mailer.mail.header import HeaderTooLarge, read_header
from mailer.send.routes.rules import Mail, Rules
from mailer.spool.entry import Entry


class Own(StrEnum):
    """Targets other than providers."""

    DIRECT = "direct"
    """To the mail exchangers of each recipient's domain."""
    LOCAL = "local"
    """Into the local Maildir."""


Target = Provider | Own
Shares = tuple[tuple[Target, int], ...]
"""Targets with their weights; if all are zero, they are tried in this order."""


class Way(msgspec.Struct, frozen=True, eq=False):
    """Where mail goes. Ways are compared by identity."""

    rule: str = ""
    """The rule that defines the way, such as `routes[2]`; empty if it is for mail that no rule matches."""
    groups: tuple[Shares, ...] = ()
    """Groups of targets, tried in this order; empty if the mail is not sent now."""
    hold: str = ""
    """Why the mail is to be held; empty if it is not."""
    waits: str = ""
    """Why the mail cannot be sent at present, although it is to be sent; empty if it can."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets, in the order in which they are tried if no group shares mail by weight."""
        return tuple(target for group in self.groups for target, _ in group)


class Directions:
    """The ways of a configuration, and the choice among them."""

    def __init__(self, config: Config) -> None:
        self._rules = Rules(config.routes)
        usual = _usual(config)
        by_rules = [_way(at, rule, config, usual) for at, rule in enumerate(config.routes)]
        self.ways = (*by_rules, Way(groups=usual))
        """One way for each rule, then one for mail that no rule matches."""

    def of(self, mail: Mail, address: str) -> Way:
        """Return the way of a message to one recipient; raises whatever reading the header raises."""
        return self.ways[self._rules.first(mail, address)]

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets of all ways, each once."""
        return tuple(dict.fromkeys(target for way in self.ways for target in way.targets))


def unreachable(hop: str) -> Way:
    """Return the way of mail that may have been delivered by a hop to which no route leads any more."""
    return Way(
        hold=f"{hop} may have delivered it, and no route leads there any more; `mailer spool release ID` "
        "sends it by the present routes, perhaps a second time; to try the same hop again, first put that "
        "provider back into the configuration"
    )


def lost_reply(hop: str, *, again: bool) -> str:
    """Return why uncertain mail is held; `again` if a second hand-over was uncertain too."""
    then = ", and a second hand-over there did not settle it" if again else ""
    return f"the final reply of {hop} was lost{then}: it may or may not have been delivered"


def keeps_mail(config: Config) -> bool:
    """Tell whether all mail goes to the local Maildir."""
    return all(target is Own.LOCAL for target in Directions(config).targets)


def mail_of(entry: Entry, read: Callable[[int, int], bytes]) -> Mail:
    """Return what rules look at in a queued message; `read` is as in `header.read_header`."""
    return Mail(
        entry.envelope.sender, entry.block.user, partial(_header, read), released=entry.state.released
    )


def _header(read: Callable[[int, int], bytes]) -> bytes | None:
    """Read a header; None if it is too large."""
    try:
        return read_header(read)
    except HeaderTooLarge:
        return None


def _usual(config: Config) -> tuple[Shares, ...]:
    """Return the default groups: direct, then providers by priority; local only if nothing else is on.

    `local` is never a fallback, because keeping a mail is not sending it.
    """
    providers = [_shares(equals) for equals in config.providers_by_priority.values()]
    direct: list[Shares] = [((Own.DIRECT, 0),)] if config.direct_delivery.enabled else []
    return (*direct, *providers) or (((Own.LOCAL, 0),),)


def _shares(equals: tuple[Provider, ...]) -> Shares:
    """Return providers of equal priority with their weights; all are zero if none has one configured."""
    shared = any(provider.weight is not None for provider in equals)
    return tuple((one, (1 if one.weight is None else one.weight) if shared else 0) for one in equals)


def _way(at: int, rule: RouteRule, config: Config, usual: tuple[Shares, ...]) -> Way:
    name = f"routes[{at}]"
    if rule.hold:
        return Way(name, hold=f"{name}: {rule.hold}")
    if rule.local:
        return Way(name, (((Own.LOCAL, 0),),))
    first: tuple[Shares, ...] = (((Own.DIRECT, 0),),) if rule.direct else _named(rule.provider, config)
    groups = (*first, *(_without(first, usual) if rule.fallback else ()))
    if groups:
        return Way(name, groups)
    why = "there is no provider of that name" if config.forward_smtp else "forwardSMTP is off"
    return Way(name, waits=f"{name} leads to the provider {rule.provider}, and {why}")


def _without(first: tuple[Shares, ...], usual: tuple[Shares, ...]) -> tuple[Shares, ...]:
    """Return the usual groups without the targets of `first` and `local`, which is never a fallback."""
    taken = {Own.LOCAL, *(target for group in first for target, _ in group)}
    left = [tuple(share for share in group if share[0] not in taken) for group in usual]
    return tuple(group for group in left if group)


def _named(label: str, config: Config) -> tuple[Shares, ...]:
    """Return the providers with a label, which accounts at one host may share, or the one with that name."""
    meant = [each for each in config.providers if each.label == label]
    meant = meant or [each for name, each in by_name(config.providers).items() if name == label]
    groups = [_shares(equals) for equals in config.providers_by_priority.values()]
    named = [tuple(share for share in group if share[0] in meant) for group in groups]
    return tuple(group for group in named if group)
