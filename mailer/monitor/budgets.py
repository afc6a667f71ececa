"""Read the usage of all budgets, under names that are safe as metric labels."""

from collections.abc import Callable

import msgspec

from mailer.config.hops import by_name
from mailer.config.model import Config
from mailer.mail import budget
from mailer.mail.budget import Allowance, Counted, Spent, WhenUsedUp
from mailer.mail.clock import Reading
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.state import budgets as records


class Budget(msgspec.Struct, frozen=True):
    """The current usage of one budget."""

    name: str
    """The provider's unique name, or the domains."""
    account: str
    """The provider's account; empty: a budget of domains."""
    counted: Counted
    waits: bool
    """Whether mail waits for this budget even if another provider could send it."""
    spent: tuple[Spent, ...]

    @property
    def until(self) -> float | None:
        """When mail may be sent again, in seconds since the epoch; None: now."""
        return max((each.free_at for each in self.spent if each.free_at is not None), default=None)

    @property
    def words(self) -> str:
        """The usage of each limit, and when mail may be sent again, as text."""
        used = ", ".join(f"{budget.in_words(each.used)} of {each.limit}" for each in self.spent)
        again = "" if self.until is None else f"; free again at {words.moment(self.until)}"
        return f"{used} ({self.counted}){again}"


def budgets(config: Config, spool: Spool, read: Callable[[], Reading]) -> tuple[Budget, ...]:
    """Return the usage of every budget, those of providers first; args: read: reads the clocks."""
    found: list[Budget] = []
    for name, each in by_name(config.providers).items():
        if each.allowance:
            spent = _spent(spool, each.account, each.allowance, read())
            found.append(_budget(name, each.account, each.allowance, spent))
    for domains in config.domain_budgets:
        if domains.allowance:
            spent = _spent(spool, domains.record, domains.allowance, read())
            found.append(_budget(domains.label, "", domains.allowance, spent))
    return tuple(found)


def _budget(name: str, account: str, allowance: Allowance, spent: tuple[Spent, ...]) -> Budget:
    return Budget(name, account, allowance.counted, allowance.when_used_up is WhenUsedUp.WAIT, spent)


def _spent(spool: Spool, of: str, allowance: Allowance, reading: Reading) -> tuple[Spent, ...]:
    return budget.spent(allowance, records.load(spool, of, reading, trusted=True), reading)
