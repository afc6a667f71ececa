"""From the configuration to a monitor that answers, and to its exit code."""

import asyncio
import errno
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from urllib.parse import urlencode

from mailer.cli.child import child_argv
from mailer.cli.exits import Exit, Failure
from mailer.cli.limits import uses
from mailer.cli.outlook import outlook
from mailer.cli.wire import program_log, tell
from mailer.config.load import Loaded
from mailer.config.secrets import Secret
from mailer.maillog.events import Level
from mailer.monitor import admin, health, metrics, page
from mailer.monitor.alerts import Alerting, Means
from mailer.monitor.app import MAX_CONNECTIONS, Context, Site, bind, post_json, serve
from mailer.monitor.exchange import Table
from mailer.monitor.limits import LimitsView
from mailer.monitor.reading import Lookout
from mailer.monitor.runs import Runs
from mailer.monitor.service import Service
from mailer.monitor.token import token_for
from mailer.spool.layout import Spool


def bound(port: int) -> Site:
    """Listen at a port of loopback; raises Failure, which says what to do."""
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
        raise Failure(Exit.UNAVAILABLE, where) from error


def _allow_descriptors() -> None:
    """Let every connection that the server takes have its descriptor; shells and systemd give 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MAX_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(loaded: Loaded, spool: Spool, site: Site) -> None:
    """Answer until SIGTERM or SIGINT."""
    _allow_descriptors()
    asyncio.run(_serve(loaded, spool, site))


async def _serve(loaded: Loaded, spool: Spool, site: Site) -> None:
    config, stop = loaded.config, asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log = program_log(config, spool, Level.NOTICE)
    means = Means(config.alerts, post_json, config.hostname or os.uname().nodename)
    service = Service(
        config=config,
        spool=spool,
        log=log,
        clock=time.time,
        lookout=Lookout(spool, time.time),
        runs=Runs(child_argv("mailer.cli.send", "--once", config=loaded.path), log),
        alerting=Alerting(spool, log, means),
        limits=LimitsView(partial(uses, config, spool, log)),
        token=token_for(spool, config.admin_token),
        outlook=partial(outlook, config, spool),
    )
    table = Table(route for part in (page, health, metrics, admin) for route in part.routes(service))
    watching = asyncio.create_task(service.keep_watch())
    try:
        async with serve(site, Context(table, service.token, log, time.time)):
            addresses = ", ".join(_name(*each.getsockname()[:2]) for each in site)
            log.notice(f"listening on {addresses}", spool=spool.path)
            if sys.stderr.isatty():  # never into a log
                tell(sys.stderr, f"status page: {link(site[0].getsockname()[1], service.token)}\n")
            await stop.wait()
    finally:
        watching.cancel()
        await service.runs.close(float(config.sending.shutdown_grace))
        with suppress(OSError):
            service.lookout.save()
    log.notice("ended")


def link(port: int, token: Secret) -> str:
    """Return the address that opens the status page and logs in, token included."""
    return f"http://localhost:{port}/login?{urlencode({'token': token.reveal()})}"


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
