"""The HTTP server: connections, and limits on what a client may send. Only this module uses aiohttp.

`messages` serves the paths. A body is streamed and not kept, so that memory does not grow with the mail.
"""

import asyncio
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote

from aiohttp import ClientError, StreamReader, web

from mailer.receive.replies import SHUTTING_DOWN
from mailer.receive.smtp.connection import HANDSHAKE_TIMEOUT
from mailer.receive.web.exchange import Answer, Asked, Gone, Pieces, Problem
from mailer.receive.web.messages import Messages

MOST = 512
"""Concurrent connections. Submitting a mail takes only a moment."""
MOST_OF_ONE = MOST // 4
"""Concurrent connections with one user's token: a program that leaks connections must not use up all."""
MAX_HEAD = 32 * 1024
"""Octets of a request's head (nginx: 4 times 8 KiB)."""
_MAX_LINE = 8190
"""Octets of a request line, which may name a hundred recipients, or of a header field (Apache: 8190)."""
_MAX_FIELDS = 64
HEAD_TIMEOUT = 10.0
"""Seconds for a request's head (Apache: 20 to 40, nginx: 60)."""
_BODY_PATIENCE = 20.0
"""Seconds to wait for a body, plus one for each `_MIN_RATE` octets received (Apache: the same)."""
_MIN_RATE = 500
"""Octets of a body a second, at least."""
_MAX_BODY_TIME = 3600.0
"""Seconds to wait for a body at most; a session allows the same for one message."""
KEEP_ALIVE = 30.0
"""Seconds that an idle connection is kept open."""
_LINGER = 2.0
"""Seconds to go on reading a refused request, so that the client gets to read the response."""
_ABORT_GRACE = 2.0
"""Seconds for requests in progress to notice that their connection was dropped."""
_BUFFER = 64 * 1024
"""Octets of a body to read ahead."""

_ALWAYS = {
    "Server": "mailer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Header fields of every response."""


class HttpServer:
    """Serves HTTP on the connections that it is given."""

    def __init__(self, messages: Messages, on_defect: Callable[[str], None]) -> None:
        """Prepare to serve.

        Args:
            messages: serves the requests.
            on_defect: called with the type name of an unexpected exception.
        """
        self._messages = messages
        self._on_defect = on_defect
        self._manager = web.Server(self._respond)
        self._tasks: dict[asyncio.Task[None], _Connection] = {}
        """The connections, oldest first."""
        self._stopping = False

    @property
    def connections(self) -> int:
        return len(self._tasks)

    def serve(
        self,
        connection: socket.socket,
        context: ssl.SSLContext | None,
        on_end: Callable[[], None],
        *,
        local: bool,
    ) -> None:
        """Serve an accepted connection; `on_end` is called when it has been closed."""
        protocol = _Connection(self._manager, asyncio.get_running_loop(), local=local)
        task = asyncio.ensure_future(self._serve(protocol, connection, context))
        self._tasks[task] = protocol
        task.add_done_callback(self._tasks.pop)
        task.add_done_callback(lambda _: on_end())

    def make_room(self, *, local: bool) -> bool:
        """Close the oldest connection that has shown no valid token; return whether there was one.

        As in `Unauthenticated`, remote clients are closed first, and a local one never for a remote one.
        """
        strangers = [pair for pair in self._tasks.items() if not pair[1].known]
        strangers.sort(key=lambda pair: pair[1].local)
        if not strangers or (strangers[0][1].local and not local):
            return False
        task, oldest = strangers[0]
        # Mark it, because it takes a moment to end; another call must close another connection.
        oldest.known = True
        if oldest.transport is None:
            task.cancel()
        oldest.abort()
        return True

    async def _serve(
        self, protocol: "_Connection", connection: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # the handshake failed
            await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT if context else None,
            )
            await protocol.lost
            # Let the request in progress finish: a message may be committed although its client has gone.
            await asyncio.wait({protocol.answering})

    async def stop(self, within: float) -> None:
        """Close idle connections now, and the others after their response, or after `within` seconds."""
        self._stopping = True
        for each in self._all():
            each.end_if_idle()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        for each in self._all():
            each.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_ABORT_GRACE)
        for task in tuple(self._tasks):
            # It is still in its handshake.
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, request: web.BaseRequest, connection: "_Connection") -> Answer:
        if self._stopping:
            raise Problem.of(SHUTTING_DOWN)
        return await self._messages.answer(_asked(request, partial(self._be_known, connection)))

    def _be_known(self, connection: "_Connection", user: str) -> None:
        """Count a connection as a user's; if the user has too many, close an idle one of them.

        Raises:
            Problem: the user has too many connections, and none is idle.
        """
        connection.known = True
        if connection.user == user:
            return
        theirs = [each for each in self._all() if each.user == user]
        if len(theirs) >= MOST_OF_ONE:
            # An idle one has sent its response; a client that pools connections will open another.
            idle = next((each for each in theirs if each.end_if_idle()), None)
            if idle is None:
                words = f"{MOST_OF_ONE} requests with this user's token are under way; let one end first"
                raise Problem(HTTPStatus.TOO_MANY_REQUESTS, words, ("Retry-After", "1"), close=True)
            idle.user = ""
        connection.user = user

    def _all(self) -> list["_Connection"]:
        return cast("list[_Connection]", self._manager.connections)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        connection.begin(request)
        try:
            answer, close = await self._answer(request, connection), False
        except Problem as problem:
            answer, close = problem.answer(), problem.close
        except Gone:
            answer, close = Problem(HTTPStatus.BAD_REQUEST, "the request's body is incomplete").answer(), True
        except Exception as error:  # noqa: BLE001 - a defect in one response must not end the receiver
            # Only its type, because its text may contain an address or a token.
            self._on_defect(type(error).__name__)
            answer, close = _internal_error(), True
        response = _response(answer)
        if connection.end() or close or self._stopping:
            response.force_close()
        return response


class _Connection(web.RequestHandler):
    """aiohttp's connection, with limits on the time and size of a request's head, and our form of errors."""

    __slots__ = (
        "_answered",
        "_ended",
        "_head",
        "_last_body",
        "_patience",
        "answering",
        "known",
        "local",
        "lost",
        "user",
    )

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, *, local: bool) -> None:
        super().__init__(
            manager,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp accepts None
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=_LINGER,
            auto_decompress=False,
            read_bufsize=_BUFFER,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_FIELDS,
        )
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the connection is closed."""
        self.local = local
        """Whether the client is on this host."""
        self.known = False
        """Whether the client has shown a valid token; also True while the connection is being closed."""
        self.user = ""
        """The user of the last valid token; empty: none, or the connection is closed in favour of another."""
        self._patience: asyncio.TimerHandle | None = None
        """The timer for a request's head: runs until the first one is complete, and later once one begins."""
        self._head = 0
        """Octets of that head so far."""
        self._answered = 0
        """The number of requests that were answered."""
        self._last_body: StreamReader | None = None
        """The body of the current or last request; its rest may still arrive."""
        self._ended = False
        """Whether the client has closed its sending side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._task_handler is not None
        self.answering = self._task_handler
        self._wait()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        self._ended = True
        self._break_off(self._last_body)
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_request:
            self._head = 0
            self._stop_waiting()
            return
        self._head += len(data)
        if self._head > MAX_HEAD:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too large")
        elif self._patience is None:
            self._wait()

    @property
    def _in_request(self) -> bool:
        """Whether the input belongs to a request whose head is complete."""
        unread = self._last_body is not None and not self._last_body.is_eof()
        return unread or self._request_count > self._answered

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's signature; aiohttp never keeps it open
        """Still answer complete requests of a client that closes its sending side; drop incomplete ones."""
        self._ended = True
        self._break_off(self._last_body)
        # A client in TLS closes both sides.
        return self._request_count > self._answered and self.ssl_context is None

    def begin(self, request: web.BaseRequest) -> None:
        """Note that a request is being answered."""
        self._last_body = request.content
        if self._ended:
            self._break_off(request.content)

    @staticmethod
    def _break_off(body: StreamReader | None) -> None:
        """Fail the reading of a body that will not be complete."""
        if body is not None and not body.is_eof():
            body.set_exception(ConnectionResetError("it ended within a request"))

    def end(self) -> bool:
        """Note that a request was answered; return whether it was the last one."""
        self._answered += 1
        return self._ended and self._answered == self._request_count

    def end_if_idle(self) -> bool:
        """Close the connection if no request is being answered; return whether it was closed."""
        idle = self._request_count == self._answered
        if idle:
            self.force_close()
        return idle

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _wait(self) -> None:
        late = partial(self._give_up, HTTPStatus.REQUEST_TIMEOUT, "the request took too long")
        self._patience = asyncio.get_running_loop().call_later(HEAD_TIMEOUT, late)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self, status: HTTPStatus, words: str) -> None:
        self._stop_waiting()
        if self.transport is not None:
            self.transport.write(raw(Problem(status, words)))
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,  # noqa: ARG002 - as above
        message: str | None = None,  # noqa: ARG002 - as above; it repeats what the client sent
    ) -> web.StreamResponse:
        """Return the response to input that is not HTTP, or to a failure in aiohttp, and close."""
        self._stop_waiting()
        unreadable = Problem(HTTPStatus(status), "the request cannot be read")
        answer = unreadable.answer() if status < HTTPStatus.INTERNAL_SERVER_ERROR else _internal_error()
        response = _response(answer)
        response.force_close()
        return response


def raw(problem: Problem) -> bytes:
    """Encode a refusal for a client that is not served by aiohttp."""
    answer = problem.answer()
    fields = {"Content-Type": answer.kind, **dict(answer.headers), "Content-Length": str(len(answer.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    head = f"HTTP/1.1 {int(problem.status)} {problem.status.phrase}\r\n{lines}Connection: close\r\n\r\n"
    return head.encode() + answer.body


def _internal_error() -> Answer:
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error, which our log describes").answer()


def _response(answer: Answer) -> web.Response:
    fields = _ALWAYS | {"Content-Type": answer.kind} | dict(answer.headers)
    return web.Response(body=answer.body, status=answer.status, headers=fields)


def _asked(request: web.BaseRequest, on_known: Callable[[str], None]) -> Asked:
    headers: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, value in request.headers.items():
        headers[name.lower()] += (value,)
    transport = request.transport
    ours = transport.get_extra_info("sockname") if transport is not None else None
    return Asked(
        method=request.method,
        path=request.raw_path.partition("?")[0],
        peer=str(request.remote or ""),
        local_address=str(ours[0]) if ours else "",
        version=(request.version.major, request.version.minor),
        headers=headers,
        query=_query(request.raw_path.partition("?")[2]),
        pieces=partial(_pieces, request),
        go_ahead=partial(_go_ahead, request),
        on_known=on_known,
    )


def _query(text: str) -> tuple[tuple[str, str], ...]:
    """Parse a query. `+` is not decoded, because many addresses contain it; bad UTF-8 becomes surrogates."""
    pairs = (each.partition("=") for each in text.split("&") if each)
    return tuple((name, unquote(value, errors="surrogateescape")) for name, _, value in pairs)


async def _go_ahead(request: web.BaseRequest) -> None:
    expected = request.headers.get("Expect", "").lower()
    if not expected:
        return
    if expected != "100-continue":
        raise Problem(HTTPStatus.EXPECTATION_FAILED, "Expect can only be 100-continue", close=True)
    transport = request.transport
    # RFC 9110 10.1.1: the expectation of an HTTP/1.0 client must be ignored.
    if transport is not None and request.version >= (1, 1):
        transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _pieces(request: web.BaseRequest) -> Pieces:
    """Read a body; only the time spent waiting for the client counts against the limit."""
    loop, content = asyncio.get_running_loop(), request.content
    received, waited = 0, 0.0
    while True:
        began = loop.time()
        try:
            async with asyncio.timeout(min(_BODY_PATIENCE + received / _MIN_RATE, _MAX_BODY_TIME) - waited):
                piece = await content.readany()
        except TimeoutError:
            words = f"the body came too slowly: {_MIN_RATE} octets a second are the least; nothing was queued"
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, words, close=True) from None
        except (OSError, ClientError, web.RequestPayloadError) as error:
            raise Gone from error
        waited += loop.time() - began
        if not piece:
            return
        received += len(piece)
        yield piece
