"""The receiving server: its listening sockets, its sessions, and its shutdown."""

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.admission import Admission, refusal_of_program
from mailer.receive.context import Client, ReceiverContext
from mailer.receive.listen.inherited import Inherited
from mailer.receive.listen.listener import Listener
from mailer.receive.listen.sockets import Bound, bind, check
from mailer.receive.peers import is_local
from mailer.receive.settings import Endpoint
from mailer.receive.smtp import authenticated
from mailer.receive.smtp.connection import HANDSHAKE_TIMEOUT, Reading
from mailer.receive.smtp.session import Session
from mailer.receive.smtp.unauthenticated import Unauthenticated
from mailer.receive.users.failures import Failures
from mailer.receive.users.local_users import PeerIds, peer_ids, user_of
from mailer.receive.users.trusted import user_at

if TYPE_CHECKING:
    from mailer.receive.settings import Address
    from mailer.receive.smtp.connection import Connection
    from mailer.receive.web.messages import Lookup
    from mailer.receive.web.server import HttpServer

_CONNECTING = 1.0
"""Seconds that a stopping server waits for connections that are still being set up, so that they get a 421.
A TLS handshake that takes longer is dropped; its client has no message in flight."""


class Server:
    """The listeners and sessions of one process; one per event loop."""

    def __init__(
        self, context: ReceiverContext, inherited: Sequence[Inherited] = (), lookup: "Lookup | None" = None
    ) -> None:
        """Prepare a server; `start` binds its sockets.

        Args:
            context: see `ReceiverContext`; its store has a running committer.
            inherited: sockets that outlive this process, see `Inherited`.
            lookup: finds what became of a message, for HTTP clients that ask; None: they get no information.
        """
        self._context = context
        self._inherited = inherited
        self._lookup = lookup
        self._http: HttpServer | None = None
        self._conversations: set[Session] = set()
        """Sessions on behalf of HTTP requests; they end with their requests, so `stop` sends them no 421."""
        self._failures = Failures(monotonic)
        self._bound: list[Bound] = []
        self._listeners: list[Listener] = []
        self._sessions: set[Session] = set()
        self._strangers = Unauthenticated()
        self._admission = Admission(context, lambda: self.sessions, self._make_room)
        self._connecting: set[asyncio.Task[object]] = set()
        self.addresses: tuple[Address, ...] = ()
        """The addresses it listens on, with the actual ports; empty before `start`."""

    @property
    def sessions(self) -> int:
        """The number of open connections, SMTP and HTTP."""
        return len(self._sessions) + (self._http.connections if self._http else 0)

    async def start(self) -> None:
        """Bind and listen.

        Raises:
            UnsafeSettingsError, NotConfiguredError: nothing was bound.
            OSError: an address could not be bound; those bound before it are closed again.
        """
        # aiosmtpd logs credentials at INFO, and our own mail events have everything useful that it logs.
        logging.getLogger("mail").setLevel(logging.ERROR)
        # If a session cannot be constructed, fail at startup and not at the first client.
        Session(Client("", local=True), self._context, self._failures, self._forget)
        self._bound = await bind(self._context, self._inherited)
        self.addresses = tuple(each.address for each in self._bound)
        self._listeners = [self._listener(each) for each in self._bound]
        for listener in self._listeners:
            listener.start()

    def _listener(self, bound: Bound) -> Listener:
        endpoint = bound.endpoint
        if endpoint.http:
            return self._http_listener(bound)
        return Listener(
            bound.listening,
            self._judge_local if endpoint.submit else partial(self._admission.judge, tls=endpoint.tls),
            self._serve_local if endpoint.submit else partial(self._serve, endpoint=endpoint),
            self._admission.out_of_descriptors,
            replies.wire,
        )

    def _http_listener(self, bound: Bound) -> Listener:
        # Imported here because aiohttp takes 100 ms to import and is needed only when HTTP is configured.
        from mailer.receive.web import server as http  # noqa: PLC0415
        from mailer.receive.web.exchange import Problem  # noqa: PLC0415
        from mailer.receive.web.messages import Messages, ReceiverParts, nothing_known  # noqa: PLC0415

        log = self._context.store.log
        if self._http is None:
            parts = ReceiverParts(
                lambda: self._context, self._failures, self._converse, self._lookup or nothing_known
            )
            self._http = http.HttpServer(Messages(parts), lambda error: log.error("defect", error=error))
        return Listener(
            bound.listening,
            self._judge_http,
            partial(self._serve_http, self._http, tls=bound.endpoint.tls),
            self._admission.out_of_descriptors,
            lambda reply: http.raw(Problem.of(reply)),
        )

    def reconfigure(self, context: ReceiverContext) -> None:
        """Use a new context for new connections, and for open ones from their next transaction on.

        The listening addresses do not change.

        Raises:
            UnsafeSettingsError: the new settings are unsafe on the current addresses; the old ones stay.
        """
        check(context, self._bound)
        self._context = self._admission.context = context
        for session in self._sessions:
            session.reconfigure(context)

    async def stop(self, grace_seconds: float) -> None:
        """Stop listening, send 421 to idle clients, let messages in flight finish, and end every session.

        If a listening socket outlives this process (socket activation), a restart should be invisible to
        clients. A client that sent a command only a moment ago may then still send one message.

        Messages still being sent after `grace_seconds` are dropped. A message that was received completely
        is always committed, because its sender may already rely on it.
        """
        outlived = any(bound.outlives_us for bound in self._bound)
        for listener in self._listeners:
            listener.close()
        for bound in self._bound:
            bound.close()
        self._bound.clear()
        self._listeners.clear()
        answers = asyncio.ensure_future(self._http.stop(grace_seconds)) if self._http else None
        for session in self._sessions - self._conversations:
            if outlived:
                session.drain()
            else:
                session.stop()
        await _wait_for(self._connecting, within=_CONNECTING)
        for task in self._connecting:
            task.cancel()
        await _wait_for(tuple(self._connecting))
        tasks = {session.ended for session in self._sessions}
        await _wait_for(tasks, within=grace_seconds)
        for session in tuple(self._sessions):
            session.abort()
        await _wait_for(tasks)
        if answers is not None:
            await answers
        self._failures.close(self._context.store.log)

    def _make_room(self, *, local: bool) -> bool:
        """Close a connection in favour of a new one; return whether there was one to close."""
        if self._strangers.make_room(local=local) or (self._http and self._http.make_room(local=local)):
            return True
        known = self._sessions - self._conversations
        return authenticated.make_room(known, asyncio.get_running_loop().time(), local=local)

    def _judge_http(self, connection: socket.socket, peer: str) -> Reply | None:
        from mailer.receive.web.server import MOST  # noqa: PLC0415 - as above

        if self._http is not None and self._http.connections >= MOST:
            self._admission.complain(f"{MOST} connections to submitHttp are open")
            if not self._http.make_room(local=is_local(peer)):
                return replies.TOO_MANY_CONNECTIONS
        return self._admission.judge(connection, peer, tls=True)

    def _judge_local(self, connection: socket.socket, peer: str) -> Reply | None:
        ids = peer_ids(connection)
        if refusal := refusal_of_program(self._context, ids):
            self._admission.note_refused(ids.peer, "localUsers")
            return refusal
        return self._admission.judge(connection, peer, tls=False)

    def _serve_local(self, connection: socket.socket, _: str) -> None:
        ids = peer_ids(connection)
        client = Client(ids.peer, local=True, user=user_of(ids, self._context.local_users))
        self._begin(connection, client, tls=False)

    def _serve(self, connection: socket.socket, peer: str, *, endpoint: Endpoint) -> None:
        # Read from the current settings: a network that is no longer trusted must lose access at a reload.
        trusted = self._context.settings.trusted
        user = user_at(peer, trusted.get(endpoint, ())) if trusted else ""
        client = Client(peer, local=is_local(peer), network_user=user, offers=endpoint.offers)
        self._begin(connection, client, tls=endpoint.tls)

    def _serve_http(self, http: "HttpServer", connection: socket.socket, peer: str, *, tls: bool) -> None:
        tls_context = self._context.certificate.context() if tls and self._context.certificate else None
        self._admission.count(peer)
        http.serve(connection, tls_context, partial(self._admission.uncount, peer), local=is_local(peer))

    def _converse(self, user: str, peer: str) -> socket.socket:
        """Start a session for `user` over a socket pair, and return the client's end of it."""
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
        # Local, because its bytes cross no network. The HTTP connection behind it was counted when accepted.
        client = Client(peer, local=True, user=user)
        session = Session(client, self._context, self._failures, self._forget)
        self._sessions.add(session)
        self._conversations.add(session)
        self._connect(session, ours, None)
        return theirs

    def _begin(self, connection: socket.socket, client: Client, *, tls: bool) -> None:
        session = Session(client, self._context, self._failures, self._forget)
        self._sessions.add(session)
        if not client.local:
            self._admission.count(client.peer)
        tls_context = None
        if tls:
            assert self._context.certificate is not None
            tls_context = self._context.certificate.context()
        task = self._connect(session, connection, tls_context)
        session.before_tls = self._strangers.in_tls
        self._strangers.add(session, task, tls=tls)

    def _connect(
        self, session: Session, connection: socket.socket, tls_context: ssl.SSLContext | None
    ) -> asyncio.Task[object]:
        loop = session.loop
        task: asyncio.Task[object] = loop.create_task(
            loop.connect_accepted_socket(
                lambda: Reading(session),
                connection,
                ssl=tls_context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls_context else None,
            )
        )
        self._connecting.add(task)
        task.add_done_callback(lambda task: self._connected(task, session))
        return task

    def _connected(self, task: asyncio.Task[object], session: Session) -> None:
        self._connecting.discard(task)
        if task.cancelled() or task.exception() is not None:
            self._forget(session)

    def _forget(self, session: "Connection") -> None:
        if session not in self._sessions:
            return
        self._sessions.remove(session)
        self._conversations.discard(session)
        self._strangers.forget(session)
        if not session.client.local:
            self._admission.uncount(session.peer)


async def serve(
    context: ReceiverContext,
    inherited: Sequence[Inherited] = (),
    lookup: "Lookup | None" = None,
    *,
    until: asyncio.Event,
    ready: Callable[[Server], None],
) -> None:
    """Run a server until an event is set, then let messages in flight finish.

    Args:
        context: see `ReceiverContext`; its store stays open.
        inherited: as for `Server`.
        lookup: as for `Server`.
        until: set by the caller's signal handlers.
        ready: called as soon as the server listens.

    Raises:
        UnsafeSettingsError, NotConfiguredError: nothing was bound.
        OSError: an address could not be bound.
    """
    _raise_descriptor_limit()
    server = Server(context, inherited, lookup)
    await server.start()
    ready(server)
    try:
        await until.wait()
    finally:
        await server.stop(context.settings.stop_grace)


async def serve_one(context: ReceiverContext, connection: socket.socket, ids: PeerIds) -> None:
    """Serve one client program on a connected socket, as at `submitSocket`, until the connection ends.

    Args:
        context: see `ReceiverContext`; its store has a running committer.
        connection: closed when this returns.
        ids: the user and groups of the client program.
    """
    if refusal := refusal_of_program(context, ids):
        context.store.log.notice("refused a connection", peer=ids.peer, reason="localUsers")
        with connection:
            connection.sendall(replies.wire(refusal))
        return
    await converse(context, connection, Client(ids.peer, local=True, user=user_of(ids, context.local_users)))


async def converse(context: ReceiverContext, connection: socket.socket, client: Client) -> None:
    """Serve a client on a connected socket as `serve_one` does, but without checking its user."""
    logging.getLogger("mail").setLevel(logging.ERROR)
    gone = asyncio.Event()
    session = Session(client, context, Failures(monotonic), lambda _: gone.set())
    connection.setblocking(False)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: Reading(session), connection)
    await gone.wait()


async def _wait_for(tasks: Collection[asyncio.Future[Any]], *, within: float | None = None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=within)


def _raise_descriptor_limit() -> None:
    """Raise the soft limit on open descriptors to the hard limit.

    A connection needs two descriptors, one of them for its message; the usual soft limit is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
