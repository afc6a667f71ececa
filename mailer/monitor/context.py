"""The monitor's components, which handlers of requests share, and its watch loop."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from mailer.config.model import Config
from mailer.config.secrets import Secret
from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.monitor.alerts import Alerting
from mailer.monitor.budgets import Budget
from mailer.monitor.limits import LimitsView
from mailer.monitor.neighbours import Neighbours
from mailer.monitor.reading import Lookout, Reading
from mailer.monitor.replays import Replays
from mailer.monitor.runs import Runs
from mailer.spool.directory import Spool
from mailer.spool.state.clock_guard import Doubt
from mailer.spool.view.verdict import Outlook

_EVERY = 5.0
"""Seconds between readings for alerts. *0.2 % of a core, with 100,000 messages queued.*"""
_SAVE_EVERY = 12
"""The number of readings after which the counters are saved."""


def _bare(_: Spool, now: float) -> Outlook:
    return Outlook(now=now)


def _none() -> None:
    return None


@dataclass(frozen=True, slots=True)
class MonitorContext:
    """The components of one monitor."""

    config: Config
    spool: Spool
    log: MailLog
    clock: Clock
    lookout: Lookout
    neighbours: Neighbours
    runs: Runs
    replays: Replays
    alerting: Alerting
    limits: LimitsView
    token: Secret
    """The token that a request must carry to see mail, or to act on it."""
    doubt: Callable[[], Doubt | None] = _none
    """Returns why the clock is not trusted now; None: it is."""
    outlook: Callable[[Spool, float], Outlook] = _bare
    """Returns what else affects when mail of a spool is sent, at a time in seconds since the epoch."""

    budgets: Callable[[], tuple[Budget, ...]] = tuple
    """Returns the current usage of all budgets."""

    async def reading(self) -> Reading:
        """Return a new reading; it is made in a thread, because the first one reads the whole ledger."""
        return await asyncio.to_thread(self.lookout.look)

    async def keep_watch(self) -> None:
        """Evaluate alerts and save the counters periodically, until cancelled."""
        said = ""
        for number in count():
            trouble = await self._watch_once(save=number % _SAVE_EVERY == 0)
            if trouble and trouble != said:
                self.log.error("the spool cannot be read, so alerts are not evaluated", error=trouble)
            said = trouble
            await asyncio.sleep(_EVERY)

    async def _watch_once(self, *, save: bool) -> str:
        """Make and evaluate one reading; return an error message, or ""."""
        try:
            await self.alerting.consider(await self.reading())
            if save:
                await asyncio.to_thread(self.lookout.save)
        except OSError as error:
            return error.strerror or str(error)
        except Exception as error:  # noqa: BLE001 - a defect in one look must not end the alerts
            return f"a defect: {type(error).__name__}"
        return ""
