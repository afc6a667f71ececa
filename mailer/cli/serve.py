"""`mailer serve`: the receiving daemon, from its configuration to its exit code."""

import asyncio
import errno
import importlib
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, parent_option
from mailer.cli.parent import end_with
from mailer.cli.wire import acting_as_owner, become_owner, configuration, make_spool, open_log
from mailer.config import checks
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.config.problem import ConfigError
from mailer.maillog.events import Level
from mailer.receive import server
from mailer.receive.auth import SingleLogin
from mailer.receive.settings import Settings
from mailer.receive.upload import Store
from mailer.spool.committer import Committer
from mailer.spool.layout import Spool


@click.command(
    epilog=examples(
        "mailer serve --config /etc/mailer/config.json",
        "mailer serve --port 2525",
    )
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Listen here instead of at smtpPort; 0 lets the system choose, and a line says which.",
)
@config_option
@parent_option
def serve(port: int | None, parent: int | None) -> Exit:
    """Receive mail into the spool until SIGTERM or Ctrl-C, which let what is in flight finish."""
    loaded = configuration()
    if problems := checks.refuse_to_serve(loaded):
        raise ConfigError(problems)
    with acting_as_owner(loaded.config.spool_dir):
        spool = make_spool(loaded.config.spool_dir)
    settings = _settings(loaded.config, port)
    with spool, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_serve(loaded, settings, spool, parent))
        except server.UnsafeSettingsError as error:
            raise Failure(Exit.CONFIG, str(error)) from error
    return Exit.OK


def _settings(config: Config, port: int | None) -> Settings:
    return Settings(
        host=config.bind_address,
        port=config.smtp_port if port is None else port,
        hostname=config.hostname or socket.gethostname(),
        local_only=config.security.allow_local_only,
        require_auth=config.auth_required,
        max_message_size=config.max_message_size,
        max_recipients=config.max_recipients,
        max_connections=config.max_connections,
        stop_grace=config.sending.shutdown_grace,
    )


async def _serve(loaded: Loaded, settings: Settings, spool: Spool, parent: int | None) -> None:
    config, stop = loaded.config, asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    login = None
    if config.default_username:
        login = SingleLogin(config.default_username, config.default_password.reveal())
    log, committer = open_log(spool, Level.INFO), Committer(spool)
    with ExitStack() as started:

        def ready(addresses: tuple[server.Address, ...]) -> None:
            # Bound: what needed root is done. Nothing has been accepted yet, and no thread runs.
            become_owner(config.spool_dir)
            end_with(parent)
            committer.start()
            started.callback(committer.close)
            for warning in checks.warnings(loaded):
                log.warning(str(warning))
            log.notice(f"listening on {', '.join(map(_name, addresses))}", spool=spool.path)

        store = Store(spool, committer, log, time.time)
        try:
            await server.serve(settings, store, login, until=stop, ready=ready)
        except OSError as error:
            raise _not_available(error, settings) from error
        log.notice("ended")


def _name(address: server.Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _not_available(error: OSError, settings: Settings) -> Exception:
    """Say in a sentence why an address cannot be listened on; other trouble is returned as it is."""
    where = _name((settings.host or "*", settings.port))
    match error.errno:
        case errno.EADDRINUSE:
            return Failure(
                Exit.UNAVAILABLE,
                f"cannot listen on {where}: Address already in use. Another program listens there; end it "
                "(`ss -ltnp` names it), or set smtpPort",
            )
        case errno.EACCES:
            return Failure(
                Exit.NO_PERMISSION,
                f"cannot listen on {where}: Permission denied. Ports below 1024 are root's: start it as root "
                "(it then becomes the spool's owner), give it CAP_NET_BIND_SERVICE, or set smtpPort",
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            why = os.strerror(error.errno)
        case _ if isinstance(error, socket.gaierror):
            why = error.strerror or str(error)
        case _:
            return error
    return Failure(Exit.UNAVAILABLE, f"cannot listen on {where}: {why}; see smtpHost")


# Any: what uvloop makes is a loop, and nothing here may depend on uvloop's being there.
def _loop_factory() -> Callable[[], Any] | None:
    """The event loop of uvloop where the `speed` extra is installed, else asyncio's own."""
    try:
        factory: Callable[[], Any] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory
