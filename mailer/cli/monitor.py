"""`mailer monitor`: health, metrics and the admin requests over HTTP, from configuration to exit code."""

import asyncio
import errno
import os
import resource
import signal
import sys
import time
from contextlib import suppress

import click

from mailer.cli.child import child_argv
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, log_format_option, parent_option
from mailer.cli.parent import end_with
from mailer.cli.wire import acting_as_owner, become_owner, configuration, make_spool, program_log
from mailer.config import checks
from mailer.config.load import Loaded
from mailer.config.problem import ConfigError
from mailer.maillog.events import Level
from mailer.monitor import admin, health, metrics
from mailer.monitor.alerts import Alerting, Means
from mailer.monitor.app import MAX_CONNECTIONS, Context, Site, bind, post_json, serve
from mailer.monitor.exchange import Table
from mailer.monitor.reading import Lookout
from mailer.monitor.runs import Runs
from mailer.monitor.service import Service
from mailer.spool.layout import Spool


@click.command(
    epilog=examples(
        "mailer monitor --config /etc/mailer/config.json",
        "curl http://localhost:8025/health",
        "curl http://localhost:8025/metrics                             # the Go relay's JSON",
        "curl -H 'Accept: text/plain' http://localhost:8025/metrics     # what Prometheus gets",
        "curl -X POST http://localhost:8025/admin/retry-failed",
        "curl -X POST -H 'Authorization: Bearer TOKEN' http://localhost:8025/admin/pause",
    )
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Listen here instead of at healthCheckPort; 0 lets the system choose, and a line says which.",
)
@log_format_option
@config_option
@parent_option
def monitor(port: int | None, parent: int | None) -> Exit:
    """Serve health, metrics and the admin requests on loopback, until SIGTERM or Ctrl-C.

    GET /health, /livez, /readyz, /metrics, /admin/config; POST /admin/retry-failed, /admin/pause,
    /admin/resume, /admin/clean-old-emails. With `adminToken` the admin requests need it. It also watches
    what `alerts` names.

    Exit code 69 when the port is taken; 0 at once when `enableHealthCheck` is false.
    """
    loaded = configuration()
    config = loaded.config
    if not config.enable_health_check:
        sys.stderr.write("mailer monitor: enableHealthCheck is false, so there is nothing to serve\n")
        return Exit.OK
    if problems := checks.refuse_to_monitor(loaded):
        raise ConfigError(problems)
    if not config.admin_token.empty:
        config.admin_token.reveal()  # Now, while somebody is looking, and not at the first request.
    with acting_as_owner(config.spool_dir):
        spool = make_spool(config.spool_dir)
    with spool:
        site = _bound(config.health_check_port if port is None else port)
        become_owner(config.spool_dir)
        end_with(parent)
        _allow_descriptors()
        asyncio.run(_serve(loaded, spool, site))
    return Exit.OK


def _bound(port: int) -> Site:
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
    )
    table = Table(route for part in (health, metrics, admin) for route in part.routes(service))
    watching = asyncio.create_task(service.keep_watch())
    try:
        async with serve(site, Context(table, config.admin_token, log, time.time)):
            addresses = ", ".join(_name(*each.getsockname()[:2]) for each in site)
            log.notice(f"listening on {addresses}", spool=spool.path)
            await stop.wait()
    finally:
        watching.cancel()
        await service.runs.close(float(config.sending.shutdown_grace))
        with suppress(OSError):
            service.lookout.save()
    log.notice("ended")


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
