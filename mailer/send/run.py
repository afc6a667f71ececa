"""Build a run of `mailer-send` from the configuration."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from mailer.config.model import Config, UncertainPolicy
from mailer.mail.clock import Clock, Clocks
from mailer.maillog.events import Level, MailLog
from mailer.send import idle
from mailer.send.backoff import Backoff
from mailer.send.context import RunContext
from mailer.send.destination_status import DestinationStatus
from mailer.send.dkim.signer import Signer
from mailer.send.dsn.notify import NotificationSettings, Notifier
from mailer.send.dsn.owed import destination
from mailer.send.journals import Journals
from mailer.send.phase import Timeouts
from mailer.send.routes.directions import Directions, Own, keeps_mail
from mailer.send.routes.plan import RoutingContext, plan
from mailer.send.routes.providers import Providers
from mailer.send.runner import Runner
from mailer.send.settle import Settler
from mailer.send.smtp.client import Session
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.places import Places
from mailer.send.smtp.pool import Pool
from mailer.send.smtp.session import Session as AnySession
from mailer.send.staging import Staging
from mailer.send.suppressed import Suppressed
from mailer.send.traces import Traces
from mailer.spool.background_close import BackgroundClose
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.layout import Spot
from mailer.spool.run.claim import Claims
from mailer.spool.state.clock_guard import ClockGuard

if TYPE_CHECKING:
    from mailer.send.budgets import Budgets
    from mailer.send.smtp.transcript import Say
    from mailer.send.unknown_recipients import Unknown


@asynccontextmanager
async def open_runner(  # noqa: PLR0913 - all that surrounds a run; its callers name each
    config: Config,
    spool: Spool,
    log: MailLog,
    clocks: Clocks,
    *,
    hostname: str,
    limit: int = 0,
    say: "Say | None" = None,
) -> AsyncIterator[Runner]:
    """Yield a runner; on exit, close its sessions and make its removals durable.

    Args:
        config: the operator's configuration.
        spool: the spool to work on.
        log: receives every mail event of the run.
        clocks: the sources of time.
        hostname: the name to give to other servers in EHLO.
        limit: the most messages to claim; 0 means no limit.
        say: called with each line of a transcript of every session.

    Raises:
        OSError: the local Maildir cannot be created.
        ValueError: the DKIM configuration names no domain or no key.
    """
    clock = clocks.wall
    signer = Signer(config.dkim, clock) if config.dkim.enabled and not keeps_mail(config) else None
    backoff = Backoff.of(config.retry)

    def on_quarantine(spot: Spot, reason: str) -> None:
        log.message("quarantined", id=spot.name, reason=reason, level=Level.ERROR)

    def on_skip(spot: Spot, reason: str) -> None:
        log.warning("skipped", path=spot.path, reason=reason)

    guard = idle.guard(spool, clocks, log)
    committer, background = Committer(spool).start(), BackgroundClose()
    try:
        opener = partial(_open_session, clock=clock, say=say)
        traces = Traces(spool, log, clock)
        pool = Pool(
            opener,
            limit=config.sending.max_sessions_per_hop,
            places=Places(clock=clock),
            on_failure=traces.keep,
        )
        suppressed = Suppressed(config, spool, clock)
        async with pool, _budgets(config, spool, clocks, guard) as budgets:
            destinations = DestinationStatus(asyncio.get_running_loop().time)
            providers = Providers(spool, log, clock)
            routing = RoutingContext(
                spool, committer, pool, providers, destinations, hostname, clock, budgets
            )
            context = RunContext(
                routes=plan(config, routing),
                backoff=backoff,
                hold_uncertain=config.uncertain is UncertainPolicy.HOLD,
                log=log,
                clock=clock,
                random=random.random,
                signer=signer,
                archive_max_age=float(config.archive_max_age),
                idempotency_window=float(config.idempotency_window),
                guard=guard,
                journals=Journals(committer),
                destinations=destinations if Own.DIRECT in Directions(config).targets else None,
                budgets=budgets,
                staging=None if keeps_mail(config) else Staging.of(config),
                suppressed=suppressed,
                unknown=_unknown(config, spool, clock, log, suppressed),
            )
            notifications = NotificationSettings(
                destination(config), hostname, float(config.delay_warning), backoff.max_age, guard.trusts
            )
            yield Runner(
                spool,
                Claims(spool, clock, clocks.boot, on_quarantine, on_skip),
                context,
                Settler(
                    committer,
                    background,
                    Notifier(spool, committer, notifications, log),
                    horizon=backoff.horizon,
                    archive=config.security.log_all_emails,
                ),
                concurrency=config.sending.concurrency,
                limit=limit,
            )
    finally:
        committer.close()
        background.close_all()


async def _open_session(hop: Hop, clock: Clock, say: "Say | None") -> AnySession:
    """Open an SMTP or HTTP session, whichever the hop speaks; raises HopTrouble."""
    if hop.api is None:
        return await Session.open(hop, Timeouts(), say)
    from mailer.send.http.session import HttpSession  # noqa: PLC0415 - most runs use SMTP only

    return await HttpSession.open(hop, Timeouts(), clock, say)


def _unknown(
    config: Config, spool: Spool, clock: Clock, log: MailLog, suppressed: Suppressed
) -> "Unknown | None":
    if not config.suppress_unknown.enabled:
        return None
    from mailer.send.unknown_recipients import Unknown  # noqa: PLC0415 - most runs do not feed the list

    return Unknown(config.suppress_unknown, spool, clock, log, suppressed.exempts)


def _budgets(
    config: Config, spool: Spool, clocks: Clocks, guard: ClockGuard
) -> "AbstractAsyncContextManager[Budgets | None]":
    """Return the budgets of a run; None if none are configured, in which case the module is not imported."""
    if not (config.domain_budgets or any(provider.allowance for provider in config.providers)):
        return nullcontext()
    from mailer.send.budgets import Budgets  # noqa: PLC0415 - as above

    return Budgets(config, spool, clocks, guard.trusts)
