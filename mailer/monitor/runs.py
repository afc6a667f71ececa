"""Start `mailer-send --once` as a child process, one at a time, without losing a request."""

import asyncio
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress

from mailer.maillog.events import MailLog


class Runs:
    """Starts runs on request; all requests during a run are served by one run after it."""

    def __init__(self, argv: tuple[str, ...], log: MailLog) -> None:
        """Args: argv: the program and its arguments; it runs without a shell."""
        self._argv = argv
        self._log = log
        self._lock = asyncio.Lock()
        self._process: Process | None = None
        self._wanted = False
        """Whether another run must follow the current one."""
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start a run now, or when the current one has ended, so that it covers what is in the spool now.

        Raises:
            OSError: the process cannot be started.
        """
        async with self._lock:
            if self._process is None:
                await self._spawn()
            else:
                self._wanted = True

    async def close(self, grace: float) -> None:
        """Terminate the current run gracefully, and kill it after `grace` seconds."""
        async with self._lock:
            self._wanted = False
            process, following = self._process, self._following
        if process is None or following is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        self._log.notice("waiting for the run of mailer-send", seconds=grace)
        await asyncio.wait([following], timeout=grace)
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait([following])

    async def _spawn(self) -> None:
        self._wanted = False
        # Forked on the event loop's thread, which lives as long as this process: the child is set to die with
        # the thread that forked it.
        self._process = await asyncio.create_subprocess_exec(*self._argv, stdin=DEVNULL, stdout=DEVNULL)
        self._following = asyncio.create_task(self._follow(self._process))

    async def _follow(self, process: Process) -> None:
        code = await process.wait()
        if code:
            self._log.warning("the run of mailer-send failed", code=code)
        async with self._lock:
            self._process = None
            if self._wanted:
                try:
                    await self._spawn()
                except OSError as error:
                    self._log.error("mailer-send cannot be started", error=error.strerror)
