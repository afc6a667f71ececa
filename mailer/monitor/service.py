"""What every answer is made from."""

import asyncio
from dataclasses import dataclass

from mailer.config.model import Config
from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.monitor.alerts import Alerting
from mailer.monitor.reading import Lookout, Reading
from mailer.monitor.runs import Runs
from mailer.spool.layout import Spool

_EVERY = 15.0
"""Seconds between looks that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Service:
    """One monitor's parts."""

    config: Config
    spool: Spool
    log: MailLog
    clock: Clock
    lookout: Lookout
    runs: Runs
    alerting: Alerting

    async def reading(self) -> Reading:
        """Look at everything, in a thread: the first look reads the whole ledger."""
        return await asyncio.to_thread(self.lookout.look)

    async def keep_watch(self) -> None:
        """Consider alerts and keep the counters, until cancelled."""
        while True:
            try:
                await self.alerting.consider(await self.reading())
                await asyncio.to_thread(self.lookout.save)
            except OSError as error:
                # Whoever asks for /health hears of it, too.
                self.log.warning("the spool cannot be looked at", error=error.strerror)
            await asyncio.sleep(_EVERY)
