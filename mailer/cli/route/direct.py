"""Look up where direct delivery would take a recipient's mail, as DNS says now."""

from mailer.config.model import Config
from mailer.config.own_name import own_name
from mailer.send.resolver import DnsResolver, LookupFailed
from mailer.send.routes.direct import domain_of, hop_to
from mailer.send.routes.hops import direct_settings
from mailer.send.routes.mx import MAX_HOSTS, Undeliverable, exchangers
from mailer.send.routes.tls_demand import demand_of
from mailer.send.smtp.hop import Hop


async def onward(config: Config, address: str) -> tuple[Hop, tuple[str, ...], str]:
    """Look up an address's mail exchangers.

    Returns:
        The first hop; all hosts that would be tried, as HOST:PORT; and why the mail could not be delivered,
        or an empty string.
    """
    settings = direct_settings(config, own_name(config))
    domain = domain_of(address, settings)
    hosts, trouble = await _exchangers(config, domain)
    hop = hop_to(settings, hosts[0] if hosts else domain, "", demand_of(config.tls_policies, domain))
    return hop, tuple(f"{host}:{settings.port}" for host in hosts), trouble


async def _exchangers(config: Config, domain: str) -> tuple[list[str], str]:
    dns = config.dns
    try:
        resolver = DnsResolver(dns.nameservers, float(dns.timeout))
        return (await exchangers(resolver, domain, lambda _: None))[:MAX_HOSTS], ""
    except Undeliverable as final:
        return [], f"it would bounce: {final.reply}"
    except LookupFailed as failed:
        return [], f"MX lookup for {domain}: {failed}"
