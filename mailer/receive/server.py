"""The receiving server: its sockets, its sessions, and how it ends."""

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from errno import EADDRNOTAVAIL, EAFNOSUPPORT
from typing import TYPE_CHECKING, Any

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.auth import Authenticator
from mailer.receive.listener import Listener
from mailer.receive.peers import is_loopback
from mailer.receive.session import Session
from mailer.receive.settings import Settings
from mailer.receive.upload import Store

if TYPE_CHECKING:
    from mailer.receive.connection import Connection

Address = tuple[str, int]

_QUIET = 60.0
"""Seconds between two complaints about the same shortage."""


class UnsafeSettingsError(ValueError):
    """What was asked for is an open relay, or a server that nobody can use; the text says what to change."""


class Server:
    """Listens, and keeps its sessions; one per event loop and process."""

    def __init__(self, settings: Settings, store: Store, authenticator: Authenticator | None = None) -> None:
        """Make ready.

        Args:
            settings: see `Settings`.
            store: the spool, its running committer, the log and the clock.
            authenticator: judges logins; None: AUTH is not offered.
        """
        self._settings = settings
        self._store = store
        self._authenticator = authenticator
        self._listeners: list[Listener] = []
        self._sessions: set[Connection] = set()
        self._connecting: set[asyncio.Task[object]] = set()
        self._complained = float("-inf")
        self.addresses: tuple[Address, ...] = ()
        """Where it listens, once started: the real ports."""

    async def start(self) -> None:
        """Bind and listen.

        Raises:
            UnsafeSettingsError: nothing was bound.
            OSError: an address cannot be had; nothing is bound any more.
        """
        # aiosmtpd writes credentials into its records at INFO; our own events say all that it would.
        logging.getLogger("mail").setLevel(logging.ERROR)
        self._new_session()  # A defect in its making is ours to see now, not the first client's.
        sockets = await self._bind()
        self.addresses = tuple(listening.getsockname()[:2] for listening in sockets)
        self._listeners = [Listener(s, self._judge, self._serve, self._complain) for s in sockets]
        for listener in self._listeners:
            listener.start()

    async def stop(self, grace_seconds: float) -> None:
        """Stop listening, let messages in flight finish, tell the idle, and end every session.

        After the grace time what is still being sent is dropped. A message that is complete is always
        committed: its sender may already count on it.
        """
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        await _ended(self._connecting)
        for session in self._sessions:
            session.stop()
        tasks = {session.task for session in self._sessions if session.task is not None}
        await _ended(tasks, within=grace_seconds)
        for session in tuple(self._sessions):
            session.abort()
        await _ended(tasks)

    async def _bind(self) -> list[socket.socket]:
        addresses = await self._resolve()
        self._check(addresses)
        sockets: list[socket.socket] = []
        failure: OSError | None = None
        for address in addresses:
            try:
                sockets.append(_bound(address))
            except OSError as error:
                failure = error
                # `localhost` may stand for ::1 on a host without IPv6.
                if error.errno not in {EADDRNOTAVAIL, EAFNOSUPPORT}:
                    break
        else:
            if sockets:
                return sockets
        for listening in sockets:
            listening.close()
        assert failure is not None
        raise failure

    async def _resolve(self) -> list[Address]:
        host, port = self._settings.host, self._settings.port
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((str(address[0]), port) for *_, address in found))
        if self._settings.local_only and not all(is_loopback(host) for host, _ in addresses):
            return [("127.0.0.1", port)]
        return addresses

    def _check(self, addresses: list[Address]) -> None:
        if self._settings.require_auth:
            if self._authenticator is None:
                raise UnsafeSettingsError(
                    "a login is required and none is configured, so nobody could send: set defaultUsername "
                    "and defaultPassword, or security.requireAuth to false"
                )
        elif not all(is_loopback(host) for host, _ in addresses):
            raise UnsafeSettingsError(
                "this would be an open relay: it listens beyond this host and asks nobody to log in. Set "
                "defaultUsername and defaultPassword, or security.allowLocalOnly to true"
            )

    def _judge(self, connection: socket.socket, peer: str) -> Reply | None:
        if self._settings.local_only and not is_loopback(peer):
            self._store.log.notice("turned a peer away", peer=peer, reason="allowLocalOnly")
            return replies.LOCAL_ONLY
        if len(self._sessions) >= self._settings.max_connections:
            self._complain(f"maxConnections ({self._settings.max_connections}) are open")
            return replies.TOO_MANY_CONNECTIONS
        with suppress(BlockingIOError):
            # RFC 5321 3.1: the client waits. One that does not was perhaps made to talk to us.
            if connection.recv(1, socket.MSG_PEEK):
                return replies.EARLY_TALKER
        return None

    def _serve(self, connection: socket.socket) -> None:
        session = self._new_session()
        self._sessions.add(session)
        task = asyncio.ensure_future(
            asyncio.get_running_loop().connect_accepted_socket(lambda: session, connection)
        )
        self._connecting.add(task)
        task.add_done_callback(lambda task: self._connected(task, session))

    def _connected(self, task: asyncio.Task[object], session: Session) -> None:
        self._connecting.discard(task)
        if task.cancelled() or task.exception() is not None:
            self._sessions.discard(session)

    def _new_session(self) -> Session:
        return Session(self._settings, self._store, self._authenticator, self._sessions.discard)

    def _complain(self, reason: object) -> None:
        """Log a shortage, once in a while: it comes with every connection until it ends."""
        now = asyncio.get_running_loop().time()
        if now - self._complained >= _QUIET:
            self._complained = now
            self._store.log.warning("connections are turned away", reason=str(reason))


async def serve(
    settings: Settings,
    store: Store,
    authenticator: Authenticator | None,
    *,
    until: asyncio.Event,
    ready: Callable[[tuple[Address, ...]], None],
) -> None:
    """Run a server until an event, then let what is in flight finish.

    Args:
        settings: see `Settings`.
        store: the spool, its running committer, the log and the clock; they stay open.
        authenticator: judges logins.
        until: set by whoever handles the signals.
        ready: told the addresses as soon as it listens.

    Raises:
        UnsafeSettingsError: nothing was bound.
        OSError: an address cannot be had.
    """
    _raise_descriptor_limit()
    server = Server(settings, store, authenticator)
    await server.start()
    ready(server.addresses)
    try:
        await until.wait()
    finally:
        await server.stop(settings.stop_grace)


def _bound(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the last run's connections to leave TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


async def _ended(tasks: Collection[asyncio.Task[Any]], *, within: float | None = None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=within)


def _raise_descriptor_limit() -> None:
    """A connection needs a descriptor, and another for its message; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
