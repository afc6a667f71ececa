"""Notes for listings of messages: what holds back all mail, and which mail is not in the queue yet."""

import sys
import time

import msgspec

from mailer.cli.clocks import clocks
from mailer.cli.output import tell
from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.mail.clock import Reading
from mailer.mail.reply import printable
from mailer.monitor.budgets import budgets
from mailer.send.hop_names import provider_at
from mailer.send.routes.directions import Directions
from mailer.spool import drop
from mailer.spool.directory import Spool
from mailer.spool.layout import DROP
from mailer.spool.view.obstacles import ExhaustedBudget, Obstacle, obstacles


def current_obstacles(config: Config, spool: Spool, now: float) -> tuple[Obstacle, ...]:
    """Find the obstacles that hold back all mail which is otherwise due."""
    targets = Directions(config).targets
    providers = [each for each in targets if isinstance(each, Provider)]
    ways = (
        {each.account: config.name_of(each) for each in providers} if len(providers) == len(targets) else {}
    )

    def account_at(hop: str) -> str:
        whose = provider_at(config, hop)
        return whose.account if whose else ""

    return obstacles(spool, ways, now, account_at, _used_up(config, spool, now) if ways else None)


def _used_up(config: Config, spool: Spool, now: float) -> dict[str, ExhaustedBudget]:
    """Return exhausted budgets by account; a provider with a weight holds back only its share of the mail."""
    shared = {
        provider.account
        for equals in config.providers_by_priority.values()
        for provider in equals
        if len(equals) > 1 and any(one.weight is not None for one in equals)
    }

    def read() -> Reading:
        return msgspec.structs.replace(clocks().read(), wall=now)

    return {
        budget.account: ExhaustedBudget(
            budget.until, budget.waits and budget.account not in shared, budget.words
        )
        for budget in budgets(config, spool, read)
        if budget.account and budget.until is not None
    }


def report_drops(spool: Spool) -> None:
    """Report mail in `drop/`, which is not in the queue yet, on standard error."""
    if said := drop.summary(spool).describe(time.time()):
        tell(sys.stderr, f"{spool.path / DROP}: {said}\n")


def report_obstacles(config: Config, spool: Spool) -> tuple[Obstacle, ...]:
    """Report on standard error what holds back all mail, and return it."""
    found = current_obstacles(config, spool, time.time())
    for each in found:
        tell(sys.stderr, f"{printable(each.said, 2000)}\n")
    return found
