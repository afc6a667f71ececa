"""Run the receiving daemon of `mailer serve`: start it, reload its configuration, and end it."""

import asyncio
import errno
import importlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit, Failure
from mailer.cli.owner import acting_as_owner, become_owner
from mailer.cli.receiving import receiver
from mailer.cli.receiving.start import obstacles
from mailer.cli.sending.drops import Drops
from mailer.cli.service import loop
from mailer.cli.service.activation import inherited
from mailer.cli.service.children import end_with
from mailer.cli.service.hangup import Terminal, listen, postpone
from mailer.cli.service.manager import ServiceManager
from mailer.cli.service.watchdog import Vitals
from mailer.cli.setup import configuration, keeping_lease, program_log, program_spool
from mailer.config import checks
from mailer.config.load import Loaded, load
from mailer.config.model import Config
from mailer.config.problem import ConfigError
from mailer.config.secrets import SecretError
from mailer.config.warnings import warnings
from mailer.maillog import outlet
from mailer.maillog.events import Level
from mailer.receive.context import ReceiverContext
from mailer.receive.listen.inherited import Inherited, NotConfiguredError
from mailer.receive.listen.sockets import UnsafeSettingsError
from mailer.receive.pickup import Pickup
from mailer.receive.server import Server
from mailer.receive.server import serve as serve_until
from mailer.receive.settings import Address, Settings
from mailer.receive.upload import Store
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.state import identity
from mailer.spool.state.programs import RECEIVER, Registration, running

if TYPE_CHECKING:
    from mailer.cli.receiving.shared_rates import OthersMail


def run(port: int | None, parent: int | None) -> Exit:
    """Receive mail until a signal ends the program.

    Args:
        port: the port to listen on; None for `smtpPort`.
        parent: the process to end with; None for none.
    """
    outlet.install()
    postpone()
    manager, sockets = ServiceManager.of(os.environ), inherited(os.environ, parent)
    loaded = configuration()
    if problems := obstacles(loaded, sockets):
        raise ConfigError(problems)
    with acting_as_owner(loaded.config.spool_dir):
        spool = program_spool(loaded.config)
        word = identity.made(spool)
    settings = replace(receiver.settings(loaded.config, port), identity=word)
    with spool:
        try:
            loop.run(_serve(loaded, settings, spool, Beginning(parent, manager, sockets)), _loop_factory())
        except (UnsafeSettingsError, NotConfiguredError) as error:
            raise Failure(Exit.CONFIG, str(error)) from error
    return Exit.OK


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the program that started this one passed to it."""

    parent: int | None
    """See `run`."""
    manager: ServiceManager
    sockets: tuple[Inherited, ...]


async def _serve(loaded: Loaded, settings: Settings, spool: Spool, begun: Beginning) -> None:
    config, stop, manager = loaded.config, asyncio.Event(), begun.manager
    running_loop = asyncio.get_running_loop()

    def end() -> None:
        manager.stopping()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        running_loop.add_signal_handler(number, end)
    log = program_log(config, spool, Level.INFO)
    committer = Committer(spool, log.together)
    host, terminal = clocks(), Terminal()
    store = Store(spool, committer, log, host.wall, boot=host.boot, uptime=host.uptime)
    with ExitStack() as started:

        def ready(server: Server) -> None:
            # The sockets are bound, so root is no longer needed. No connection has been accepted and no
            # thread started yet.
            become_owner(config.spool_dir)
            end_with(begun.parent)
            committer.start()
            drops.open(config)
            started.callback(committer.close)
            for warning in warnings(loaded):
                log.warning(str(warning))
            where = f"listening on {', '.join(map(_name, server.addresses))}"
            log.notice(f"for mail, {where}", spool=spool.path)
            started.enter_context(keeping_lease(spool, log))
            entry = started.enter_context(Registration(spool, RECEIVER, str(loaded.path)))

            def describe() -> str:
                return f"{where}; {committer.committed} messages taken, {server.sessions} connections"

            vitals = Vitals(manager, spool, log, describe, committer.answer)
            reloader = Reloader(server, context, loaded, entry, manager, drops)
            listen(running_loop, lambda: end() if terminal.gone else reloader.start())
            manager.ready(describe())
            started.enter_context(vitals.kept())
            drops.start(Pickup(spool, log, clocks().wall, lambda: reloader.context))
            if others_mail:
                counting = asyncio.create_task(others_mail.count(lambda: reloader.context.rates))
                started.callback(counting.cancel)

        drops, others_mail = Drops(spool, log), _others_mail(spool)
        context = receiver.context(loaded, settings, store, receiver.certificate(config, log))
        try:
            lookup = _lookup(config, spool)
            await serve_until(context, begun.sockets, lookup, until=stop, ready=ready)
        except OSError as error:
            raise _not_available(error, settings, spool) from error
        finally:
            await drops.end()
        log.notice("ended")


class Reloader:
    """Reloads the configuration and the certificate on SIGHUP, without dropping a connection."""

    def __init__(
        self,
        server: Server,
        context: ReceiverContext,
        loaded: Loaded,
        entry: Registration,
        manager: ServiceManager,
        drops: Drops,
    ) -> None:
        self._server = server
        self.context = context
        self._path = loaded.path
        self._config = loaded.config
        self._entry = entry
        self._manager = manager
        self._drops = drops
        self._restart: tuple[str, ...] = ()
        """The changed keys that take effect only after a restart."""
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def start(self) -> None:
        """Start a reload, or, while one is running, schedule another after it."""
        if self._task is not None and not self._task.done():
            self._again = True
        else:
            self._task = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        log = self.context.store.log
        self._manager.reloading()
        try:
            # In a thread, because a secret's command may be slow, and reading a large ledger is.
            context = await asyncio.to_thread(self._read)
            self._server.reconfigure(context)
        except (ConfigError, SecretError, UnsafeSettingsError, OSError) as error:
            log.warning("the new configuration cannot be used; the old one stays", error=str(error))
            self._entry.read_again(trouble=str(error))
        else:
            self.context = context
            log.notice("the configuration was read again")
            self._entry.read_again(restart=self._restart)
        finally:
            self._manager.ready("read the configuration again")
        if self._again:
            self._again = False
            await self._reload()

    def _read(self) -> ReceiverContext:
        old = self.context
        loaded = load(self._path, os.environ)
        if problems := checks.refuse_to_serve(loaded):
            raise ConfigError(problems)
        settings = receiver.settings(loaded.config, old.settings.port)
        settings = replace(settings, identity=old.settings.identity)
        restart = []
        if (settings.host, settings.endpoints) != (old.settings.host, old.settings.endpoints):
            old.store.log.warning("the changed listen addresses take effect only after a restart")
            now, then = loaded.config, self._config
            restart += [
                key
                for key, changed in (
                    ("smtpHost", now.bind_address != then.bind_address),
                    ("listeners", now.listeners != then.listeners),
                    ("submitSocket", now.submit_socket != then.submit_socket),
                    ("submitHttp", _http_place(now) != _http_place(then)),
                )
                if changed
            ]
        if settings.offers != old.settings.offers:
            old.store.log.warning("the changed smtpTls and smtpAuth take effect only after a restart")
            restart += ["smtpTls", "smtpAuth"]
        if loaded.config.smtp_port != self._config.smtp_port:
            old.store.log.warning("the changed listen addresses take effect only after a restart")
            restart.append("smtpPort")
        if loaded.config.spool_dir != old.store.spool.path:
            old.store.log.warning("the changed spoolDir takes effect only after a restart")
            restart.append("spoolDir")
        self._restart = tuple(restart)
        certificate = receiver.certificate(loaded.config, old.store.log)
        self._drops.open(loaded.config)
        return receiver.context(loaded, settings, old.store, certificate, old.rates)


def _others_mail(spool: Spool) -> "OthersMail | None":
    """Follow what the other hosts accept; None if the spool is not shared."""
    if not spool.is_shared:
        return None
    from mailer.cli.receiving.shared_rates import OthersMail  # noqa: PLC0415 - most hosts share nothing

    return OthersMail(spool)


def _lookup(config: Config, spool: Spool) -> Callable[[str, str], Mapping[str, object] | None] | None:
    if not config.submit_http.enabled:
        return None
    from mailer.cli.receiving.submitted import look_up  # noqa: PLC0415 - only for submission by HTTP

    return partial(look_up, spool)


def _http_place(config: Config) -> tuple[object, ...]:
    asked = config.submit_http
    return (asked.host, asked.port, asked.tls) if asked.enabled else ()


def _name(address: Address) -> str:
    host, port = address
    if not port and host[:1] in {"/", "@"}:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _not_available(error: OSError, settings: Settings, spool: Spool) -> Exception:
    """Return a Failure that explains why an address cannot be listened on; return other errors unchanged."""
    where = error.filename or _name((settings.host or "*", settings.port))
    match error.errno:
        case errno.EADDRINUSE:
            return Failure(
                Exit.UNAVAILABLE,
                f"cannot listen on {where}: Address already in use. {_holder(spool)}; end it, or set another "
                "port (smtpPort, or that of the listener)",
            )
        case errno.EACCES if "/" not in where:
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


def _holder(spool: Spool) -> str:
    """Describe the program that probably holds the port: usually another `mailer serve` on this spool."""
    with suppress(OSError):
        for each in running(spool):
            if each.name == RECEIVER:
                return f"{each.name} is already running on this spool (pid {each.pid}; see `mailer reload`)"
    return "Another program listens there, which `ss -ltnp` names"


# Typed Any because uvloop may not be installed, also where types are checked.
def _loop_factory() -> Callable[[], Any] | None:
    """Return uvloop's event loop factory if the `speed` extra is installed; None for asyncio's default."""
    try:
        factory: Callable[[], Any] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory
