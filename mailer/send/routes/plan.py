"""Build the routes of a run from the configuration."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.mail.clock import Clock
from mailer.send.destination_status import DestinationStatus
from mailer.send.presentation import Presentation
from mailer.send.routes.directions import Directions, Own, Target
from mailer.send.routes.forward import ForwardRoute
from mailer.send.routes.hops import direct_settings, hop_of, tokens_of, usual_sessions
from mailer.send.routes.local import LocalRoute
from mailer.send.routes.providers import Breaker, Providers
from mailer.send.routes.route import Route
from mailer.send.routes.table import Table
from mailer.send.smtp.pool import Pool
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.state import identity

if TYPE_CHECKING:
    from mailer.send.budgets import Budgets
    from mailer.spool.state.slots import Slots


@dataclass(frozen=True, slots=True)
class RoutingContext:
    """The services that the routes of a run share."""

    spool: Spool
    """Contains the local Maildir."""
    committer: Committer
    """Makes local deliveries durable."""
    pool: Pool
    """Keeps sessions open for reuse."""
    providers: Providers
    """Keeps the circuit breakers of the providers."""
    destinations: DestinationStatus
    """Keeps the health of the direct route's destinations."""
    ehlo_domain: str
    """The name to give to other servers in EHLO."""
    clock: Clock
    budgets: "Budgets | None"
    """Limits how much is sent; None if there are no limits."""


def plan(config: Config, context: RoutingContext) -> Table:
    """Return the table of routes for the ways of the configuration; see `directions`.

    Args:
        config: the operator's configuration.
        context: the services that the routes share.

    Raises:
        OSError: the local Maildir is needed and cannot be created, or there is no name server to ask.
        ValueError: `dns.nameservers` names one that is not an address.
    """
    directions = Directions(config)
    return Table(directions, {target: _route(target, config, context) for target in directions.targets})


def _route(target: Target, config: Config, context: RoutingContext) -> Route:
    match target:
        case Own.LOCAL:
            return LocalRoute(context.spool, context.committer)
        case Own.DIRECT:
            return _direct(config, context)
        case Provider():
            return _forward(target, config, context)


def _direct(config: Config, context: RoutingContext) -> Route:
    # Imported here: dnspython takes 0.15 s, which a run that only forwards need not spend each minute.
    from mailer.send.resolver import DnsResolver  # noqa: PLC0415
    from mailer.send.routes.direct import DirectRoute  # noqa: PLC0415

    resolver = DnsResolver(config.dns.nameservers, float(config.dns.timeout))
    settings = replace(
        direct_settings(config, context.ehlo_domain), sessions=_sessions(config, context.spool)
    )
    return DirectRoute(settings, context.pool, resolver, random.shuffle, context.destinations)


def _sessions(config: Config, spool: Spool) -> Callable[[str], "tuple[Slots | None, int]"]:
    """Return a function that gives the counter and the limit of sessions to a recipient domain."""
    limited = [
        (budget, _slots(spool, budget.record, budget.max_sessions), budget.max_sessions)
        for budget in config.domain_budgets
        if budget.max_sessions
    ]

    def sessions(domain: str) -> "tuple[Slots | None, int]":
        return next(((slots, most) for budget, slots, most in limited if budget.covers(domain)), (None, 0))

    return sessions


def _slots(spool: Spool, of: str, most: int) -> "Slots | None":
    """Return the counter of the sessions of all runners; None if their number is not limited."""
    if not most:
        return None
    from mailer.spool.state.slots import Slots  # noqa: PLC0415 - most runs have no such limit

    return Slots(spool, of, most)


def _forward(provider: Provider, config: Config, context: RoutingContext) -> Route:
    largest = config.batch_size
    if provider.api:
        from mailer.send.http.apis import LIMITS  # noqa: PLC0415 - not needed for SMTP only, as in most runs

        largest = min(largest, LIMITS[provider.api].recipients)
    hop = hop_of(provider, config, context.ehlo_domain)
    most = provider.max_sessions or usual_sessions(provider)
    return ForwardRoute(
        replace(
            hop,
            slots=_slots(context.spool, provider.account, most),
            ourselves=identity.known(context.spool),
            tokens=tokens_of(provider, context.spool, context.clock),
        ),
        context.pool,
        Breaker(context.providers, provider.account, config.name_of(provider)),
        Presentation.to(provider),
        batch_size=largest,
        batch_delay=config.batch_delay / 1000,
        budget=context.budgets.of_provider(provider, str(hop)) if context.budgets else None,
    )
