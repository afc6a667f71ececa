"""Set up and run the monitor's HTTP service, and reload its configuration."""

import asyncio
import errno
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit, Failure
from mailer.cli.limits import uses
from mailer.cli.outlook import outlook
from mailer.cli.output import tell
from mailer.cli.service.children import child_argv
from mailer.cli.service.hangup import Terminal, listen
from mailer.cli.service.loop import run as run_loop
from mailer.cli.service.manager import ServiceManager
from mailer.cli.service.watchdog import Vitals
from mailer.cli.setup import keeping_lease, program_log
from mailer.config import checks
from mailer.config.load import Loaded, load
from mailer.config.own_name import own_name
from mailer.config.problem import ConfigError
from mailer.config.recheck import Recheck
from mailer.config.secrets import Secret, SecretError
from mailer.maillog.events import Level
from mailer.monitor import admin, health, metrics, page
from mailer.monitor.alerts import Alerting, AlertSettings
from mailer.monitor.app import MAX_CONNECTIONS, HttpContext, Site, bind, serve
from mailer.monitor.budgets import budgets
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Table
from mailer.monitor.limits import LimitsView
from mailer.monitor.neighbours import Neighbours
from mailer.monitor.reading import Lookout
from mailer.monitor.replays import Replays
from mailer.monitor.runs import Runs
from mailer.monitor.token import token_for
from mailer.spool.directory import Spool
from mailer.spool.state.clock_guard import known_doubt
from mailer.spool.state.programs import Registration


def bound(port: int) -> Site:
    """Listen on a loopback port; raises Failure, which says what to do."""
    try:
        return bind(port)
    except OSError as error:
        where = f"cannot listen on localhost:{port}: {os.strerror(error.errno or 0)}"
        if error.errno == errno.EADDRINUSE:
            raise Failure(
                Exit.UNAVAILABLE,
                f"{where}. Another program, perhaps another monitor, listens there; end it (`ss -ltnp` names "
                "it), or set healthCheckPort",
            ) from error
        if error.errno == errno.EACCES:
            raise Failure(
                Exit.NO_PERMISSION, f"{where}. Ports below 1024 are root's; set healthCheckPort"
            ) from error
        if error.errno == errno.EMFILE:
            raise
        raise Failure(Exit.UNAVAILABLE, where) from error


def _allow_descriptors() -> None:
    """Raise the descriptor limit to what the server's connections need; shells and systemd set 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MAX_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(loaded: Loaded, spool: Spool, site: Site, manager: ServiceManager) -> None:
    """Serve HTTP until SIGTERM or SIGINT."""
    _allow_descriptors()
    run_loop(_serve(loaded, spool, site, manager))


async def _serve(loaded: Loaded, spool: Spool, site: Site, manager: ServiceManager) -> None:
    loop, terminal = asyncio.get_running_loop(), Terminal()
    stop, hung_up = asyncio.Event(), asyncio.Event()

    def end() -> None:
        manager.stopping()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    listen(loop, lambda: end() if terminal.gone else hung_up.set())
    log = program_log(loaded.config, spool, Level.NOTICE)
    registered = Registration(spool, "mailer monitor", str(loaded.path))
    with keeping_lease(spool, log), registered as entry:
        await _Observer(loaded, spool, entry, manager).observe(site, stop, hung_up)


class _Observer:
    """The running monitor, with its current configuration."""

    def __init__(self, loaded: Loaded, spool: Spool, entry: Registration, manager: ServiceManager) -> None:
        self._manager = manager
        self._loaded = loaded
        self._spool = spool
        self._entry = entry
        self._lookout = Lookout(spool, time.time, Recheck(loaded.path).trouble)
        self._neighbours = Neighbours(spool, loaded.config.host, time.time)
        self._context = self._made(loaded)

    def _made(self, loaded: Loaded) -> MonitorContext:
        """Make the service; raises ConfigError, SecretError, OSError if the configuration cannot be used."""
        config, spool = loaded.config, self._spool
        log = program_log(config, spool, Level.NOTICE)
        return MonitorContext(
            config=config,
            spool=spool,
            log=log,
            clock=time.time,
            lookout=self._lookout,
            neighbours=self._neighbours,
            runs=Runs(child_argv("mailer.cli.send", "--once", config=loaded.path), log),
            replays=Replays(
                child_argv("mailer", "spool", "replay", config=loaded.path, logs=False),
                allowed=config.show_content,
            ),
            alerting=Alerting(spool, log, AlertSettings(config, own_name(config))),
            limits=LimitsView(partial(uses, config, spool, log)),
            token=token_for(spool, config.admin_token),
            doubt=partial(known_doubt, spool, clocks()),
            outlook=partial(outlook, config),
            budgets=partial(budgets, config, spool, clocks().read),
        )

    def _http_context(self) -> HttpContext:
        context = self._context
        table = Table(route for part in (page, health, metrics, admin) for route in part.routes(context))
        return HttpContext(table, context.token, context.log, time.time)

    async def observe(self, site: Site, stop: asyncio.Event, hung_up: asyncio.Event) -> None:
        """Serve HTTP until `stop` is set; reload the configuration when `hung_up` is set."""
        watching = asyncio.create_task(self._context.keep_watch())
        try:
            async with serve(site, self._http_context()) as responder:
                addresses = ", ".join(_name(*each.getsockname()[:2]) for each in site)
                self._context.log.notice(
                    f"for the status page and health, listening on {addresses}: http://localhost:"
                    f"{site[0].getsockname()[1]}/ (mailer monitor --link prints the address that logs in)",
                    spool=self._spool.path,
                )
                if sys.stderr.isatty():  # The address holds the token, which must not get into a log.
                    where = link(site[0].getsockname()[1], self._context.token)
                    tell(sys.stderr, f"status page: {where}\n")
                describe = f"answering at {addresses}"
                self._manager.ready(describe)
                with Vitals(self._manager, self._spool, self._context.log, lambda: describe).kept():
                    while await _either(stop, hung_up):
                        self._manager.reloading()
                        if await self._reload():
                            responder.use(self._http_context())
                            watching.cancel()
                            watching = asyncio.create_task(self._context.keep_watch())
                        self._manager.ready("read the configuration again")
        finally:
            watching.cancel()
            await self._context.replays.close(float(self._context.config.sending.shutdown_grace))
            await self._context.runs.close(float(self._context.config.sending.shutdown_grace))
            with suppress(OSError):
                self._lookout.save()
            self._neighbours.close()
        self._context.log.notice("ended")

    async def _reload(self) -> bool:
        """Reload the configuration; return whether it took effect."""
        log, before = self._context.log, self._loaded.config
        try:
            loaded = await asyncio.to_thread(_read, self._loaded.path)
            context = self._made(loaded)
        except (ConfigError, SecretError, OSError) as error:
            log.warning("the new configuration cannot be used; the old one stays", error=str(error))
            self._entry.read_again(trouble=str(error))
            return False
        # Runs that an admin request has started still belong to the old service's `runs`, so keep that.
        self._context, self._loaded = replace(context, runs=self._context.runs), loaded
        after = loaded.config
        changed = {
            "healthCheckPort": after.health_check_port != before.health_check_port,
            "enableHealthCheck": after.enable_health_check != before.enable_health_check,
            "spoolDir": after.spool_dir != before.spool_dir,
        }
        restart = tuple(key for key, differs in changed.items() if differs)
        if restart:
            log.warning("these changed keys take effect only after a restart", keys=", ".join(restart))
        context.log.notice("the configuration was read again")
        self._entry.read_again(restart=restart)
        return True


async def _either(stop: asyncio.Event, hung_up: asyncio.Event) -> bool:
    """Wait for either event; return whether only `hung_up` was set, and clear it."""
    waits = [asyncio.create_task(event.wait()) for event in (stop, hung_up)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()
    if stop.is_set():
        return False
    hung_up.clear()
    return True


def _read(path: Path) -> Loaded:
    loaded = load(path, os.environ)
    if problems := checks.refuse_to_monitor(loaded):
        raise ConfigError(problems)
    if not loaded.config.admin_token.empty:
        loaded.config.admin_token.reveal()  # Here, in a thread, because the secret's command may be slow.
    return loaded


def link(port: int, token: Secret) -> str:
    """Return the URL that opens the status page and logs in; it contains the token."""
    return f"http://localhost:{port}/login?{urlencode({'token': token.reveal()})}"


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
