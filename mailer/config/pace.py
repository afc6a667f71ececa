"""Configuration of sending budgets, of providers and of recipient domains."""

from typing import Annotated

import msgspec

from mailer.config.kinds import Count, Group, Limit, Name
from mailer.mail.address import a_labels
from mailer.mail.budget import Allowance, Counted, WhenUsedUp


class Pace(Group, frozen=True, kw_only=True):
    """Limits per minute, hour and day for all runners of a spool together; 0: no limit."""

    max_per_minute: Limit | None = None
    """None: no limit, except that `sending.ratePerHop` limits each runner at a provider, which 0 lifts."""
    max_per_hour: Limit = 0
    max_per_day: Limit = 0
    warm_up: tuple[Count, ...] = ()
    """The limits of the first day, the second, and so on, counted from the first mail; then `maxPerDay`
    applies. For an IP address or account without a reputation yet."""
    budget_counts: Counted = Counted.RECIPIENTS
    """What the limits above count."""
    when_used_up: WhenUsedUp = WhenUsedUp.WAIT
    max_sessions: Count | None = None
    """Concurrent connections of all runners together; None: `sending.maxSessionsPerHop` for each runner."""

    @property
    def allowance(self) -> Allowance:
        """The limits as plain values; false if there is no limit."""
        return Allowance(
            self.max_per_minute or 0,
            self.max_per_hour,
            self.max_per_day,
            self.warm_up,
            self.budget_counts,
            self.when_used_up,
        )


class DomainBudget(Pace, frozen=True, kw_only=True):
    """A budget for mail to recipients in some domains, on any route."""

    domains: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    """The domains that share the budget; `.example.net`: all its subdomains."""

    @property
    def label(self) -> str:
        return ", ".join(self.domains)

    @property
    def record(self) -> str:
        """The key of its persistent state, like `Provider.account`."""
        return "domains " + " ".join(sorted(domain.lower() for domain in self.domains))

    def covers(self, domain: str) -> bool:
        """Return whether a recipient domain is one of these, or a subdomain of one with a leading dot."""
        plain = a_labels(domain)
        return any(
            plain.endswith("." + a_labels(one[1:])) if one.startswith(".") else plain == a_labels(one)
            for one in self.domains
        )
