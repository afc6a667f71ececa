"""The option `--resolver HOST[:PORT]`: the name server to query instead of the configured ones."""

import socket
from typing import TYPE_CHECKING

import click

from mailer.config.model import Config
from mailer.mail.reply import printable

if TYPE_CHECKING:
    from mailer.send.resolver import DnsResolver

resolver_option = click.option(
    "--resolver", metavar="HOST[:PORT]", help="Ask this name server instead of the configured ones."
)


def name_servers(config: Config, resolver: str | None) -> "DnsResolver":
    """Make the DNS resolver; raises LookupFailed when /etc/resolv.conf is needed and names no server."""
    from mailer.send.resolver import DnsResolver  # noqa: PLC0415 - imports dnspython, needed only here

    servers = config.dns.nameservers if resolver is None else (_numeric(resolver),)
    return DnsResolver(servers, float(config.dns.timeout))


def _numeric(resolver: str) -> str:
    """Resolve HOST[:PORT] to ADDRESS:PORT, the form in which name servers are configured."""
    host, colon, port = resolver.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.startswith("[")):
        host, port = resolver, "53"
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError, OverflowError) as error:
        raise click.BadParameter(f"{printable(resolver)} is not a name server: {error}") from None
    return f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"
