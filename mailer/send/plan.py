"""From the configuration to the routes, in the order in which they are tried."""

from collections.abc import Iterator

from mailer.config.model import Config, Provider
from mailer.send.forward import ForwardRoute
from mailer.send.hop import Hop, StartTls
from mailer.send.maildir import LocalRoute
from mailer.send.pool import Pool
from mailer.send.route import Route
from mailer.spool.committer import Committer
from mailer.spool.layout import Spool


def plan(
    config: Config, pool: Pool, spool: Spool, committer: Committer, ehlo_domain: str
) -> tuple[Route, ...]:
    """Return the routes: providers by priority; the local Maildir only when nothing else is switched on.

    Keeping a mail is not sending it, so `local` is never a fallback.

    Args:
        config: the operator's.
        pool: keeps the sessions of all providers.
        spool: holds the local Maildir.
        committer: makes local deliveries durable.
        ehlo_domain: what we call ourselves to others.

    Raises:
        OSError: the local Maildir is wanted and cannot be made.
    """
    if keeps_mail(config):
        return (LocalRoute(spool, committer),)
    return tuple(_forward(config, pool, ehlo_domain))


def route_names(config: Config) -> tuple[str, ...]:
    """Name the routes that `plan` would return, in the same order, without making anything."""
    if keeps_mail(config):
        return (LocalRoute.name,)
    return tuple(str(_hop(provider, "")) for provider in config.providers)


def keeps_mail(config: Config) -> bool:
    """Tell whether mail stays here, in the local Maildir."""
    return not config.providers and not config.direct_delivery.enabled


def _forward(config: Config, pool: Pool, ehlo_domain: str) -> Iterator[Route]:
    for provider in config.providers:
        yield ForwardRoute(
            _hop(provider, ehlo_domain),
            pool,
            batch_size=config.batch_size,
            batch_delay=config.batch_delay / 1000,
        )


def _hop(provider: Provider, ehlo_domain: str) -> Hop:
    return Hop(
        name=provider.host,
        port=provider.port,
        implicit_tls=provider.ssl,
        starttls=StartTls.WHEN_OFFERED,
        verify=not provider.insecure_skip_verify,
        username=provider.username,
        password=provider.password if provider.username else None,
        ehlo_domain=ehlo_domain,
    )
