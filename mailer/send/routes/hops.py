"""The next hops that a configuration names, without routes to them: these need asyncio, and locks."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mailer.config.hops import DirectDelivery, IpVersion, Provider, TlsLevel
from mailer.config.model import Config
from mailer.config.oauth import OAuth2
from mailer.mail.clock import Clock
from mailer.mail.outcome import Status
from mailer.send.routes.directions import Directions, Own, Target, lost_reply
from mailer.send.routes.tls_demand import STARTTLS, demand_of
from mailer.send.smtp.hop import Hop
from mailer.spool.directory import Spool
from mailer.spool.message_state import Standing

if TYPE_CHECKING:
    from mailer.oauth.source import TokenSource
    from mailer.send.routes.direct import DirectSettings
    from mailer.send.routes.mx import Rules


def hop_of(provider: Provider, config: Config, ehlo_domain: str = "") -> Hop:
    """Return a provider as a next hop.

    With a username, nothing is sent in cleartext whatever the TLS policy, except as `Hop.on_this_host` allows
    (see `client`), and the certificate is verified, so that no other host gets the password. Without a
    username the policy decides, except that `ssl` demands TLS with a verified certificate.
    """
    demand = demand_of(config.tls_policies, provider.host)
    verified = bool(provider.username) or provider.ssl or demand.level is TlsLevel.VERIFY
    mechanism = provider.auth.mechanism if isinstance(provider.auth, OAuth2) else provider.auth
    logins = {p.username for p in config.providers if (p.host, p.port) == (provider.host, provider.port)}
    return Hop(
        name=provider.host,
        port=provider.port,
        api=provider.api,
        api_url=provider.api_url.rstrip("/"),
        region=provider.region,
        implicit_tls=provider.ssl,
        starttls=STARTTLS[demand.level],
        verify=verified and not provider.insecure_skip_verify,
        verify_name=demand.verify_name,
        username=provider.username,
        password=provider.password if provider.username and not provider.oauth else None,
        auth=mechanism.upper() if mechanism else "",
        ehlo_domain=ehlo_domain,
        source_address=provider.source_address,
        max_sessions=provider.max_sessions or usual_sessions(provider),
        per_minute=config.sending.rate_per_hop if provider.max_per_minute is None else 0,
        shared=len(logins) > 1,
    )


def target_name(target: Target, config: Config) -> str:
    """Return the name of a target as in the journal, without building its route."""
    return str(hop_of(target, config)) if isinstance(target, Provider) else target.value


def leads_to(target: Target, hop: str, config: Config) -> bool:
    """Return what `Route.leads_to` would for the target's route, without building that route."""
    match target:
        case Own.LOCAL:
            return hop == target.value
        case Own.DIRECT:
            return direct_settings(config, "").may_name(hop)
        case Provider():
            return hop_of(target, config).is_named(hop)


def held_in_doubt(standings: Iterable[Standing], config: Config) -> str:
    """Return why the next run holds a message for uncertain recipients; empty if it does not."""
    for standing in standings:
        if standing.status is not Status.UNCERTAIN or standing.allowed:
            continue
        if config.uncertain == "hold":
            return lost_reply(standing.hop, again=False)
        if standing.doubted_twice and _holds_second_doubt(standing.hop, config):
            return lost_reply(standing.hop, again=True)
    return ""


def _holds_second_doubt(hop: str, config: Config) -> bool:
    known = (target for target in Directions(config).targets if leads_to(target, hop, config))
    target = next(known, None)
    return isinstance(target, Provider) and target.api is not None


def direct_settings(config: Config, ehlo_domain: str) -> "DirectSettings":
    """Return the settings for sessions with exchangers; `ehlo_domain` is the default name for EHLO."""
    from mailer.send.routes.direct import DirectSettings  # noqa: PLC0415 - as above

    direct = config.direct_delivery
    return DirectSettings(
        port=direct.port,
        rules=rules_of(direct),
        ehlo_domain=direct.ehlo_domain or ehlo_domain,
        batch_size=config.batch_size,
        batch_delay=config.batch_delay / 1000,
        attempts=direct.retry_count,
        source_address=direct.source_address,
        per_minute=config.sending.rate_per_hop,
        tls_policies=config.tls_policies,
        insecure_skip_verify=direct.insecure_skip_verify,
    )


def rules_of(direct: DirectDelivery) -> "Rules":
    """Return which addresses of exchangers may be used."""
    from mailer.send.routes.mx import Rules  # noqa: PLC0415 - as above

    return Rules(
        ipv4=direct.ip_version is not IpVersion.SIX and ":" not in direct.source_address,
        ipv6=direct.ip_version is not IpVersion.FOUR and "." not in direct.source_address,
        allow_private=direct.allow_private,
    )


def tokens_of(provider: Provider, spool: Spool, clock: Clock) -> "TokenSource | None":
    """Return the source of a provider's access tokens; None if its login uses a password."""
    if provider.oauth is None:
        return None
    from mailer.oauth.source import TokenSource  # noqa: PLC0415 - not needed for passwords

    return TokenSource(provider.oauth, provider.username, provider.account, spool, clock)


def usual_sessions(provider: Provider) -> int:
    """Return how many concurrent requests an HTTP interface documents for one account; 0 if it names none."""
    if provider.api is None:
        return 0
    from mailer.send.http.apis import LIMITS  # noqa: PLC0415 - as above

    return LIMITS[provider.api].sessions
