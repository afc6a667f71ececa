"""`mailer-send --watch`: run a runner until a signal, and replace it by a new one when SIGHUP reloads."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mailer.cli.clocks import clocks
from mailer.cli.sending import drops
from mailer.cli.service.hangup import Terminal, listen
from mailer.cli.service.manager import ServiceManager
from mailer.cli.service.watchdog import Vitals
from mailer.cli.setup import program_log
from mailer.config.checks import refuse_to_send
from mailer.config.load import Loaded, load
from mailer.config.model import Config
from mailer.config.own_name import own_name
from mailer.config.problem import ConfigError
from mailer.config.secrets import SecretError
from mailer.maillog.events import Level, MailLog
from mailer.send.heartbeat import Heartbeat
from mailer.send.run import open_runner
from mailer.send.runner import Runner  # noqa: TC001 - next to the other imports from send
from mailer.spool.directory import Spool
from mailer.spool.state import provider_state
from mailer.spool.state.programs import Registration


class Watch:
    """Delivers mail until a signal ends it; at SIGHUP a runner with the new configuration takes over.

    The old runner claims no more messages, and finishes those that it has claimed, however long that takes:
    interrupting it could send a message twice.
    """

    def __init__(self, loaded: Loaded, spool: Spool, log: MailLog, manager: ServiceManager) -> None:
        self._manager = manager
        self._loaded = loaded
        self._spool = spool
        self._log = log
        self._stop = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._terminal = Terminal()
        self._runner: Runner | None = None
        """The runner that claims messages; earlier runners only finish theirs."""
        self._shifts: set[asyncio.Task[None]] = set()
        self._telling: asyncio.Task[None] | None = None
        """The event delivery of the current configuration; None if `onEvent` is off."""

    async def run(self) -> None:
        """Run until a signal; raises errors of the first runner's start, and any that end a runner."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        listen(loop, self._on_hangup)
        await self._begin(self._loaded, self._log)
        # Register only now: `mailer reload` finds this program by its registration, and signals it.
        with Registration(self._spool, "mailer-send --watch", str(self._loaded.path)) as entry:
            self._manager.ready(self._describe())
            with Vitals(self._manager, self._spool, self._log, self._describe).kept():
                await self._work(entry)

    async def _work(self, entry: Registration) -> None:
        waits = {asyncio.create_task(self._stop.wait()), asyncio.create_task(self._reloads(entry))}
        # The pickup is among the tasks awaited at the end, so that it finishes the message in progress.
        self._shifts.add(asyncio.create_task(self._take_in()))
        while not self._stop.is_set():
            done, _ = await asyncio.wait({*waits, *self._shifts}, return_when=asyncio.FIRST_COMPLETED)
            self._shifts -= done
            for task in done:
                task.result()
        for task in waits:
            task.cancel()
        await asyncio.gather(*self._shifts)
        if self._telling:
            self._telling.cancel()

    async def _take_in(self) -> None:
        await drops.keep_taking_in(lambda: self._loaded, self._spool, lambda: self._log, self._stop)

    def _on_hangup(self) -> None:
        if self._terminal.gone:
            self._end()
        else:
            self._hung_up.set()

    def _end(self) -> None:
        self._manager.stopping()
        self._stop.set()

    def _describe(self) -> str:
        assert self._runner is not None
        done = self._runner.tally
        return f"{done.finished} messages sent, {done.deferred} deferred, {done.failed} given up"

    async def _reloads(self, entry: Registration) -> None:
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            self._manager.reloading()
            try:
                await self._reload(entry)
            finally:
                self._manager.ready("read the configuration again")

    async def _reload(self, entry: Registration) -> None:
        before = self._runner
        try:
            # In a thread, because a secret's command may be slow.
            loaded = await asyncio.to_thread(_read, self._loaded.path)
            log = program_log(loaded.config, self._spool, Level.INFO)
            await self._begin(loaded, log)
        except (ConfigError, SecretError, OSError, ValueError) as error:
            self._log.warning("the new configuration cannot be used; the old one stays", error=str(error))
            entry.read_again(trouble=str(error))
            return
        restart = ("spoolDir",) if loaded.config.spool_dir != self._loaded.config.spool_dir else ()
        self._loaded, self._log = loaded, log
        if before is not None:
            before.stop_claiming()
        # The new configuration may have corrected what a provider was paused for: the next message tries it.
        with suppress(OSError):
            provider_state.end_pauses(self._spool, datetime.fromtimestamp(time.time(), UTC))
        if restart:
            log.warning("the changed spoolDir takes effect only after a restart")
        log.notice("the configuration was read again")
        entry.read_again(restart=restart)

    async def _begin(self, loaded: Loaded, log: MailLog) -> None:
        """Start a runner and wait until it is `_runner`; raises the errors of its start."""
        ready = asyncio.Event()
        task = asyncio.create_task(self._shift(loaded, log, ready))
        begun = asyncio.create_task(ready.wait())
        await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if task.done():
            task.result()
        self._shifts.add(task)

    async def _shift(self, loaded: Loaded, log: MailLog, ready: asyncio.Event) -> None:
        config = loaded.config
        hostname = own_name(config)
        heartbeat = Heartbeat(self._spool, log, time.time, "watch")
        async with open_runner(config, self._spool, log, clocks(), hostname=hostname) as runner:
            log.notice("watching the spool", path=self._spool.path)
            self._runner = runner
            self._tell(config, log)
            ready.set()
            async with heartbeat.kept_fresh(runner):
                await runner.watch(self._stop, float(config.sending.shutdown_grace))

    def _tell(self, config: Config, log: MailLog) -> None:
        if self._telling:
            self._telling.cancel()
            self._telling = None
        if config.on_event.enabled:
            from mailer.cli.sending.event_delivery import deliver_until_stopped, deliverer  # noqa: PLC0415 - few hosts use onEvent

            if made := deliverer(config, self._spool, log):
                self._telling = asyncio.create_task(deliver_until_stopped(made, log))


def _read(path: Path) -> Loaded:
    loaded = load(path, os.environ)
    if problems := refuse_to_send(loaded):
        raise ConfigError(problems)
    return loaded
