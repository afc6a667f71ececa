"""Whose a hop is that the journal or the ledger names: as runners write it, `login@host:port` at most."""

import re

from mailer.config.hops import Provider
from mailer.config.model import Config


def provider_at(config: Config, hop: str) -> Provider | None:
    """Return the provider that a hop, as the journal names it, belongs to; None: none of ours."""
    plain = re.sub(r"\[[^\]]*\](?=:\d+$)", "", hop)
    login, _, at = plain.rpartition("@")
    for each in config.providers:
        if at == f"{each.host}:{each.port}" and login in {"", each.username}:
            return each
    return None


def named(config: Config, hop: str) -> str:
    """Write a hop with the provider's name, where that says more than the address."""
    whose = provider_at(config, hop)
    return f"{config.name_of(whose)} ({hop})" if whose and whose.name and whose.name not in hop else hop
