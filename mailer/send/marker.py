"""The sign of life that a runner leaves in the spool, see `spool.last_run`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mailer import __version__
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.send.runner import Runner
from mailer.spool import last_run
from mailer.spool.last_run import LastRun
from mailer.spool.layout import Spool

_EVERY = 60.0
"""Seconds between the marks of a runner that stays."""


class Marker:
    """Marks one run; a mark that cannot be written stops no mail."""

    def __init__(self, spool: Spool, log: MailLog, now: Clock, mode: str) -> None:
        self._spool = spool
        self._log = log
        self._now = now
        self._mode = mode
        self._began = now()

    def set(self, runner: Runner) -> None:
        """Say that the run could work, and what it did so far."""
        at, tally = self._now(), runner.tally
        run = LastRun(
            at=clock.rfc3339(at),
            began=clock.rfc3339(self._began),
            seconds=round(max(0.0, at - self._began), 3),
            mode=self._mode,
            claimed=tally.claimed,
            sent=tally.finished,
            deferred=tally.deferred,
            failed=tally.failed,
            held=tally.held,
            version=__version__,
        )
        try:
            last_run.write(self._spool, run)
        except OSError as error:
            self._log.warning("the mark of this run cannot be written; mail goes on", error=error.strerror)

    @contextlib.asynccontextmanager
    async def kept_fresh(self, runner: Runner) -> AsyncIterator[None]:
        """Mark a runner that stays every minute in which it can work, and when it ends."""
        task = asyncio.create_task(self._repeat(runner))
        try:
            yield
            self.set(runner)
        finally:
            task.cancel()

    async def _repeat(self, runner: Runner) -> None:
        while True:
            if not runner.troubled:
                self.set(runner)
            await asyncio.sleep(_EVERY)
