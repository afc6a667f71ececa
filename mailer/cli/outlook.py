"""What `mailer spool why` and the status page know beside a message: the configuration and the providers."""

from functools import partial

from mailer.config.model import Config
from mailer.send.advice import advise, named
from mailer.spool import provider_state, words
from mailer.spool.layout import Spool
from mailer.spool.provider_state import ProviderState
from mailer.spool.verdict import Outlook


def outlook(config: Config, spool: Spool, now: float) -> Outlook:
    """Gather it; args: now: seconds since the epoch."""
    return Outlook(
        now=now,
        max_age=float(config.retry.max_age),
        resting=resting(config, spool, now),
        name=partial(named, config),
        advise=partial(advise, config),
    )


def resting(config: Config, spool: Spool, now: float) -> str:
    """Say until when all providers are paused; empty while one is in use, or mail may leave without."""
    if config.direct_delivery.enabled or not config.providers:
        return ""
    states = provider_state.read(spool)
    known = [(each, states.get(each.account, ProviderState())) for each in config.providers]
    paused = [
        (state.open_until.timestamp(), f"{each.label} is paused, {state.words}: {state.trouble}")
        for each, state in known
        if state.open_until and state.open_until.timestamp() > now
    ]
    if len(paused) < len(known):
        return ""
    first, why = min(paused)
    others = f" (all {len(paused)} providers are)" if len(paused) > 1 else ""
    return f"No provider takes mail before {words.moment(first)}: {why}{others}."
