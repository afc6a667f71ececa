"""Find the provider of a hop that the journal or the ledger names, as `login@host:port` or a part of that."""

import re

from mailer.config.hops import Provider
from mailer.config.model import Config


def provider_at(config: Config, hop: str) -> Provider | None:
    """Return the provider that a hop in the journal belongs to; None if no configured one does.

    A hop without a port is our own conclusion about a host, and a provider's if no other has that host.
    """
    plain = re.sub(r"\[[^\]]*\](?=:\d+$)", "", hop)
    login, _, at = plain.rpartition("@")
    for each in config.providers:
        if at == f"{each.host}:{each.port}" and login in {"", each.username}:
            return each
    there = providers_with(config, hop)
    return there[0] if len(there) == 1 else None


def providers_with(config: Config, host: str) -> list[Provider]:
    """Return the providers at a hop of the journal that has no port."""
    return [each for each in config.providers if host in {each.host, f"[{each.host}]"}]


def named(config: Config, hop: str) -> str:
    """Return a hop with the provider's name added, if the name is not part of the address."""
    whose = provider_at(config, hop)
    return f"{config.name_of(whose)} ({hop})" if whose and whose.name and whose.name not in hop else hop
