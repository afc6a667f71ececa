"""Heartbeat: the runner's file in the spool that says when a run last worked, see `spool.state.last_run`."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mailer import __version__
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.spool.directory import Spool
from mailer.spool.state import last_run
from mailer.spool.state.last_run import LastRun

if TYPE_CHECKING:
    from mailer.send.runner import Runner
    from mailer.send.worker import Tally

_INTERVAL = 60.0
"""Seconds between the heartbeats of a long-running runner."""


class Heartbeat:
    """Writes the heartbeats of one run; a failure to write is logged and does not stop mail."""

    def __init__(self, spool: Spool, log: MailLog, now: Clock, mode: str) -> None:
        self._spool = spool
        self._log = log
        self._now = now
        self._mode = mode
        self._began = now()

    def set(self, tally: "Tally | None" = None) -> None:
        """Write that the run works, and what it did so far; `tally` is None if there was nothing to do."""
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
            self._log.warning(
                "state/last-run.json cannot be written; no mail depends on it", error=error.strerror
            )

    @contextlib.asynccontextmanager
    async def kept_fresh(self, runner: "Runner") -> AsyncIterator[None]:
        """Write a heartbeat every minute in which a long-running runner can work, and one when it ends."""
        import asyncio  # noqa: PLC0415 - a run that finds nothing to do needs none of it

        async def repeat() -> None:
            while True:
                if not runner.troubled:
                    self.set(runner.tally)
                await asyncio.sleep(_INTERVAL)

        task = asyncio.create_task(repeat())
        try:
            yield
            self.set(runner.tally)
        finally:
            task.cancel()
