"""Read the state of all configured providers, under names that are safe as metric labels."""

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
    """The expiry of a secret, certificate or refresh token with which a provider's tokens are requested."""

    at: float
    """Seconds since the epoch."""
    what: str
    known_from: str
    todo: str


@dataclass(frozen=True, slots=True)
class Provider:
    """The current state of one provider."""

    name: str
    """Its unique name; without the login, which is an address."""
    state: ProviderState
    ends: tuple[End, ...] = ()
    """Known expiry times of its credentials, from the configuration, a certificate or a server."""
    login: str = ""
    """The key of its tokens; empty: it uses none. It contains the username, so it must not be shown."""

    @property
    def up(self) -> bool:
        """Whether its circuit breaker is closed; False while it is open or half-open."""
        return self.state.open_until is None

    def health(self, now: float) -> str:
        """Return the state of its circuit breaker as text; args: now: seconds since the epoch."""
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
        """What is wrong with it, and what to do about it if that is known."""
        cause = self.state.cause
        return f"{self.words}. {cause.advice(self.name)}" if cause else self.words


def providers(reading: Reading, config: Config) -> tuple[Provider, ...]:
    """Return the state of each provider, in the order in which they are tried."""
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
