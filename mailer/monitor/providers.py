"""The configured providers, by names that are fit to be labels, and how runners found them."""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from mailer.config import hops
from mailer.config.model import Config
from mailer.config.oauth import Grant
from mailer.monitor.reading import Reading
from mailer.spool import words
from mailer.spool.state.provider_state import Health, ProviderState, health
from mailer.spool.state.token_store import Ending


class End(NamedTuple):
    """When something ends that a provider's tokens are asked for with."""

    at: float
    """Seconds since the epoch."""
    what: str
    known_from: str
    todo: str


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider as it is now."""

    name: str
    """What the operator calls it, with a number if several are called so; no login, which is an address."""
    state: ProviderState
    ends: tuple[End, ...] = ()
    """What ends of what it logs in with, as far as somebody has written it down or a server has said."""
    login: str = ""
    """What its tokens are kept by; empty: it uses none. Not to be shown, as it has a username."""

    @property
    def up(self) -> bool:
        """It gets mail; False while it is paused, and until it has taken a message after that."""
        return self.state.open_until is None

    def health(self, now: float) -> str:
        """Say in a few words whether it is used; args: now: seconds since the epoch."""
        until = self.state.open_until
        if until is None:
            return "in use"
        paused = health(self.state, datetime.fromtimestamp(now, UTC)) is Health.OPEN
        return f"paused until {words.moment(until.timestamp())}" if paused else "on trial"

    @property
    def words(self) -> str:
        return self.state.words

    @property
    def told(self) -> str:
        """Say what is wrong with it, and what to do where that is known."""
        cause = self.state.cause
        return f"{self.words}. {cause.advice(self.name)}" if cause else self.words


def providers(reading: Reading, config: Config) -> tuple[Provider, ...]:
    """Say how each provider is, in the order in which they are tried."""
    found: list[Provider] = []
    for name, each in hops.by_name(config.providers).items():
        state = reading.providers.get(each.account, ProviderState())
        login = each.oauth.record(each.account) if each.oauth else ""
        found.append(Provider(name, state, _ends(each, name, reading), login))
    return tuple(found)


def _ends(provider: hops.Provider, name: str, reading: Reading) -> tuple[End, ...]:
    oauth = provider.oauth
    if oauth is None:
        return ()
    ending = reading.endings.get(oauth.record(provider.account), Ending())
    new = "make a new one, and type mailer reload"
    tried = f"{new}; mailer auth test {shlex.quote(name)} tries it"
    renew = f"mailer auth login {shlex.quote(name)}"
    if ending.put_off:
        renew = f"it was long not used; mailer auth test {shlex.quote(name)} puts that off"
    elif oauth.grant is Grant.REFRESH_TOKEN:
        renew = "have its user agree again, write the new one into refreshToken, and type mailer reload"
    ends = [
        End(oauth.ends or 0.0, "the secret or certificate", "auth.expires", new),
        End(ending.certificate, "the certificate", "it says so itself", tried),
        End(ending.refresh, "the refresh token", "as its server has it", renew),
    ]
    return tuple(end for end in ends if end.at)
