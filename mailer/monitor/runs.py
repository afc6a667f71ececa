"""Runs of `mailer-send --once` as a child: one at a time, and never one too few."""

import asyncio
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress

from mailer.maillog.events import MailLog


class Runs:
    """Starts runs for whoever asks; those who ask during one share the one that follows it."""

    def __init__(self, argv: tuple[str, ...], log: MailLog) -> None:
        """Args: argv: the program and its arguments; it runs without a shell."""
        self._argv = argv
        self._log = log
        self._wanted = False
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None

    def start(self) -> None:
        """Have a run begin now, or when the one under way has ended; what is in the spool now is in it."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def close(self, grace: float) -> None:
        """Let the run under way finish what is in flight; end it after `grace` seconds."""
        self._wanted = False
        if self._task is None:
            return
        with suppress(ProcessLookupError):
            if self._process is not None:
                self._process.terminate()
                self._log.notice("waiting for the run of mailer-send", seconds=grace)
        await asyncio.wait([self._task], timeout=grace)
        with suppress(ProcessLookupError):
            if self._process is not None:
                self._process.kill()
        await asyncio.wait([self._task])

    async def _work(self) -> None:
        while self._wanted:
            self._wanted = False
            try:
                # Forked by the event loop's thread, which lives as long as we do: the child ends with it.
                self._process = await asyncio.create_subprocess_exec(
                    *self._argv, stdin=DEVNULL, stdout=DEVNULL
                )
            except OSError as error:
                self._log.error("mailer-send cannot be started", error=error.strerror)
                return
            code = await self._process.wait()
            self._process = None
            if code:
                self._log.warning("the run of mailer-send failed", code=code)
