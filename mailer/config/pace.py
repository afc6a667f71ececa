"""The part of the model that says how much may be sent: budgets of providers and of recipient domains."""

from typing import Annotated

import msgspec

from mailer.config.kinds import Count, Group, Limit, Name
from mailer.mail.address import a_labels
from mailer.mail.budget import Counted, Terms, WhenUsedUp


class Pace(Group, frozen=True, kw_only=True):
    """How much may be sent in any minute, hour and day, by all runners of a spool together; 0: no limit."""

    max_per_minute: Limit | None = None
    """None: no limit. For a provider then also `sending.ratePerHop`, of each runner, which 0 overrules."""
    max_per_hour: Limit = 0
    max_per_day: Limit = 0
    warm_up: tuple[Count, ...] = ()
    """What the first day allows, the second, and so on, counted from the first mail under it; then
    `maxPerDay`. For an address or an account that receivers do not know yet."""
    budget_counts: Counted = Counted.RECIPIENTS
    """What the limits above count."""
    when_used_up: WhenUsedUp = WhenUsedUp.WAIT
    max_sessions: Count | None = None
    """Connections at once, of all runners together; none: `sending.maxSessionsPerHop`, of each runner."""

    @property
    def terms(self) -> Terms:
        """What is allowed, as plain values; false: anything."""
        return Terms(
            self.max_per_minute or 0,
            self.max_per_hour,
            self.max_per_day,
            self.warm_up,
            self.budget_counts,
            self.when_used_up,
        )


class DomainBudget(Pace, frozen=True, kw_only=True):
    """What recipients in some domains may be sent, by whatever route."""

    domains: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    """These together; `.example.net`: all domains below that one."""

    @property
    def label(self) -> str:
        return ", ".join(self.domains)

    @property
    def record(self) -> str:
        """What its record is kept by, as `Provider.account`."""
        return "domains " + " ".join(sorted(domain.lower() for domain in self.domains))

    def covers(self, domain: str) -> bool:
        """Tell whether a recipient domain is one of these, or below one."""
        plain = a_labels(domain)
        return any(
            plain.endswith("." + a_labels(one[1:])) if one.startswith(".") else plain == a_labels(one)
            for one in self.domains
        )
