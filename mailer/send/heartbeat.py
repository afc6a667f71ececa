"""The sign of life that a runner leaves in the spool, see `spool.last_run`."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mailer import __version__
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.spool.layout import Spool
from mailer.spool.state import last_run
from mailer.spool.state.last_run import LastRun

if TYPE_CHECKING:
    from mailer.send.runner import Runner
    from mailer.send.worker import Tally

_EVERY = 60.0
"""Seconds between the marks of a runner that stays."""


class Heartbeat:
    """Marks one run; a mark that cannot be written stops no mail."""

    def __init__(self, spool: Spool, log: MailLog, now: Clock, mode: str) -> None:
        self._spool = spool
        self._log = log
        self._now = now
        self._mode = mode
        self._began = now()

    def set(self, tally: "Tally | None" = None) -> None:
        """Say that the run could work, and what it did so far; None: there was nothing to do."""
        at = self._now()
        run = LastRun(
            at=clock.rfc3339(at),
            began=clock.rfc3339(self._began),
            seconds=round(max(0.0, at - self._began), 3),
            mode=self._mode,
            version=__version__,
        )
        if tally:
            run = replace(
                run,
                claimed=tally.claimed,
                sent=tally.finished,
                deferred=tally.deferred,
                failed=tally.failed,
                held=tally.held,
            )
        try:
            last_run.write(self._spool, run)
        except OSError as error:
            self._log.warning("the mark of this run cannot be written; mail goes on", error=error.strerror)

    @contextlib.asynccontextmanager
    async def kept_fresh(self, runner: "Runner") -> AsyncIterator[None]:
        """Mark a runner that stays every minute in which it can work, and when it ends."""
        import asyncio  # noqa: PLC0415 - a run that finds nothing to do needs none of it

        async def repeat() -> None:
            while True:
                if not runner.troubled:
                    self.set(runner.tally)
                await asyncio.sleep(_EVERY)

        task = asyncio.create_task(repeat())
        try:
            yield
            self.set(runner.tally)
        finally:
            task.cancel()
