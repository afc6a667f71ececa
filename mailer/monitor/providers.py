"""The configured providers, by names that are fit to be labels, and how runners found them."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from mailer.config.model import Config
from mailer.monitor.reading import Reading
from mailer.spool import words
from mailer.spool.provider_state import Health, ProviderState, health


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider as it is now."""

    name: str
    """What the operator calls it, with a number if several are called so; no login, which is an address."""
    state: ProviderState
    secret_ends: float | None = None
    """When its secret or certificate ends, in seconds since the epoch; None: nobody has written it down."""

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
    called: Counter[str] = Counter()
    for each in config.providers:
        called[each.label] += 1
        name = f"{each.label} #{called[each.label]}" if called[each.label] > 1 else each.label
        state = reading.providers.get(each.account, ProviderState())
        found.append(Provider(name, state, each.oauth.ends if each.oauth else None))
    return tuple(found)
