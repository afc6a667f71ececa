"""The context in which `why` and the status page judge a message: obstacles to delivery, and advice."""

from functools import partial

from mailer.cli.obstacles import current_obstacles
from mailer.config.model import Config
from mailer.send.hop_names import named
from mailer.spool.directory import Spool
from mailer.spool.message_state import Standing
from mailer.spool.view.verdict import Outlook


def _advise(config: Config, standing: Standing) -> str:
    from mailer.send.advice.recipient import advise  # noqa: PLC0415 - reads replies, and most mail has caused none to explain

    return advise(config, standing)


def outlook(config: Config, spool: Spool, now: float) -> Outlook:
    """Collect the context at `now`, in seconds since the epoch."""
    return Outlook(
        now=now,
        max_age=float(config.retry.max_age),
        obstacles=current_obstacles(config, spool, now),
        name=partial(named, config),
        advise=partial(_advise, config),
    )
