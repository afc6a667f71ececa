"""The HTTP server: sockets, connections, and limits on what clients may send. Only this module uses aiohttp.

It defines no paths itself: `serve` gets a table of routes, and answers all other requests with an error.
"""

import asyncio
import socket
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from errno import EADDRNOTAVAIL, EAFNOSUPPORT
from http import HTTPStatus
from typing import Any

from aiohttp import web

from mailer.config.secrets import Secret
from mailer.ground.listening import bound_socket
from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.monitor import guard
from mailer.monitor.exchange import JSON, Answer, Asked, Refusal, Table

MAX_BODY = 64 * 1024
"""Octets of a request's body; forms of the status page are far smaller."""
MAX_CONNECTIONS = 2000
"""Concurrent connections. A few browsers and one Prometheus need a dozen; with more, the oldest one without a
request is closed, because every user of the host may hold them all."""
HEAD_TIMEOUT = 10.0
"""Seconds for a request's head (Apache: 20 to 40, nginx: 60; here the client is on this host)."""
BODY_TIMEOUT = 10.0
"""Seconds for a request's body."""
KEEP_ALIVE = 75.0
"""Seconds that an idle connection stays open (nginx: 75); Prometheus scrapes every 15 to 60 seconds."""
_LINGER = 2.0
"""Seconds in which the rest of a refused request is read, so that the client gets the answer."""
_SHUTDOWN = 2.0
"""Seconds that answers in progress get at shutdown; event streams never end by themselves."""

_ALWAYS = {
    "Server": "mailer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Header fields of every answer, which the answer may override."""

Site = tuple[socket.socket, ...]
"""The bound sockets of a server."""


@dataclass(frozen=True, slots=True)
class HttpContext:
    """What the server needs to answer requests."""

    table: Table
    token: Secret
    log: MailLog
    clock: Clock


def bind(port: int) -> Site:
    """Bind a port at 127.0.0.1 and, if the host has IPv6, at ::1; port 0 lets the system choose one for both.

    Raises:
        OSError: the port cannot be bound; nothing stays bound.
    """
    bound: list[socket.socket] = []
    try:
        for address in ("127.0.0.1", "::1"):
            try:
                bound.append(bound_socket((address, port)))
                # Listen immediately, so that no other server can bind the port.
                bound[-1].listen(1024)
            except OSError as error:
                # A host without IPv6 is fine. Other errors are not: browsers try ::1 first for `localhost`,
                # and no other process may answer there.
                if not bound or error.errno not in {EADDRNOTAVAIL, EAFNOSUPPORT}:
                    raise
            port = bound[0].getsockname()[1]
    except OSError:
        for each in bound:
            each.close()
        raise
    return tuple(bound)


@asynccontextmanager
async def serve(site: Site, context: HttpContext) -> AsyncIterator["Responder"]:
    """Serve while the block runs; afterwards answers in progress get `_SHUTDOWN` seconds."""
    loop = asyncio.get_running_loop()
    responder = Responder(context)
    manager = web.Server(responder.respond, request_factory=_request)

    def connect() -> _Connection:
        return _Connection(
            manager,
            context.clock,
            loop=loop,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=_LINGER,
            auto_decompress=False,
        )

    servers = [await loop.create_server(connect, sock=listening) for listening in site]
    try:
        yield responder
    finally:
        for server in servers:
            server.close()
        await manager.shutdown(_SHUTDOWN)


# The same as aiohttp's own factory, except for the limit of the body.
def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:  # noqa: ANN401
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)


class _Connection(web.RequestHandler):
    """aiohttp's connection, with a timeout for the head, and errors in our format."""

    __slots__ = ("_begun", "_clock", "_patience")

    def __init__(self, manager: web.Server, clock: Clock, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(manager, **options)
        self._clock = clock
        self._patience: asyncio.TimerHandle | None = None
        self._begun = False
        """Whether a request's head is expected or has begun to arrive."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._manager is not None
        if len(self._manager.connections) > MAX_CONNECTIONS and not self._make_room():
            self.force_close()
            return
        self._begun = True
        self._wait()

    def _make_room(self) -> bool:
        """Close the oldest of the other connections that is idle; return whether there was one."""
        assert self._manager is not None
        for each in self._manager.connections:
            if isinstance(each, _Connection) and each is not self and each.close_if_idle():
                return True
        return False

    def close_if_idle(self) -> bool:
        """Close the connection unless a request is being answered; return whether it was closed."""
        if self.transport is None or self._current_request is not None or self._messages:
            return False
        self.transport.abort()
        self.force_close()
        return True

    def data_received(self, data: bytes) -> None:
        if self._patience is None and self._current_request is None:
            self._begun = True
            self._wait()
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's signature; aiohttp never keeps it open
        """Answer a client that has half-closed the connection (`printf ... | nc`), then close it."""
        if self._waiter is not None and not self._messages:
            return False  # aiohttp waits for a request, and none will arrive.
        self.close()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def head_is_whole(self) -> None:
        """Stop the timeout, since the head has arrived and the request is being answered."""
        self._begun = False
        self._stop_waiting()

    def _wait(self) -> None:
        self._patience = asyncio.get_running_loop().call_later(HEAD_TIMEOUT, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.transport is not None and self._begun:
            late = Refusal(HTTPStatus.REQUEST_TIMEOUT, "the request took too long").answer(self._clock())
            assert isinstance(late.body, bytes)
            head = f"HTTP/1.1 408 Request Timeout\r\nContent-Type: {JSON}\r\nContent-Length: {len(late.body)}"
            self.transport.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + late.body)
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,  # noqa: ARG002 - as above
        message: str | None = None,  # noqa: ARG002 - as above; it repeats what the client sent
    ) -> web.StreamResponse:
        """Answer malformed HTTP, or an error in aiohttp itself; the connection is closed afterwards."""
        self._stop_waiting()
        text = "the request cannot be read" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal error"
        response = _response(Refusal(HTTPStatus(status), text).answer(self._clock()))
        response.force_close()
        return response


class Responder:
    """Converts aiohttp requests to `Asked`, and answers to aiohttp responses."""

    def __init__(self, context: HttpContext) -> None:
        self._context = context

    def use(self, context: HttpContext) -> None:
        """Use another context from the next request on."""
        self._context = context

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, _Connection):
            request.protocol.head_is_whole()
        try:
            answer = await self._answer(request)
        except Refusal as refusal:
            answer = refusal.answer(self._context.clock())
        except OSError as error:
            text = f"the spool cannot be read or written: {error.strerror or error}"
            answer = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, text).answer(self._context.clock())
        except Exception as error:  # noqa: BLE001 - a defect in one answer must not end the monitor
            # Only the type, since the text may contain an address or a secret.
            self._context.log.error("defect", path=request.path, error=type(error).__name__)
            answer = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error").answer(self._context.clock())
        if isinstance(answer.body, bytes):
            return _response(answer)
        return await _stream(request, answer, answer.body)

    async def _answer(self, request: web.BaseRequest) -> Answer:
        asked = _head(request)
        # Before any lookup or read, so that a client without permission learns nothing.
        guard.check(asked)
        if not request.raw_path.startswith("/"):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the request's target must be a path")
        route, parts = self._context.table.find(asked.method, asked.path)
        if route.admin:
            guard.authorise(asked, self._context.token)
        body = await _body(request)
        return await route.handler(_with(asked, body, parts))


def _head(request: web.BaseRequest) -> Asked:
    headers: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, value in request.headers.items():
        headers[name.lower()] += (value,)
    return Asked(request.method, request.path, request.remote or "", headers, dict(request.query))


def _with(asked: Asked, body: bytes, parts: Mapping[str, str]) -> Asked:
    return Asked(asked.method, asked.path, asked.peer, asked.headers, asked.query, body, parts)


async def _body(request: web.BaseRequest) -> bytes:
    too_large = Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY} octets", ("Connection", "close")
    )
    if (request.content_length or 0) > MAX_BODY:
        raise too_large
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except TimeoutError:
        late = "the request took too long"
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, late, ("Connection", "close")) from None


def _headers(answer: Answer) -> dict[str, str]:
    return _ALWAYS | {"Content-Type": answer.kind} | dict(answer.headers)


def _response(answer: Answer) -> web.Response:
    assert isinstance(answer.body, bytes)
    response = web.Response(body=answer.body, status=answer.status, headers=_headers(answer))
    if answer.status in {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT}:
        response.force_close()
    return response


async def _stream(
    request: web.BaseRequest, answer: Answer, pieces: AsyncGenerator[bytes]
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    with suppress(ConnectionError):
        async with aclosing(pieces):
            await response.prepare(request)
            async for piece in pieces:
                await response.write(piece)
    return response
