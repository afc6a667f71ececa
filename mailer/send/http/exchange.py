"""Exchange HTTP requests and answers on one connection; no other module of `send` imports aiohttp."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mailer.calls.post import is_local, proxied, words_of
from mailer.send.http.answer import Answer
from mailer.send.http.apis import Request
from mailer.send.phase import Phase, Timeouts
from mailer.send.smtp import tls

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_MAX_ANSWER = 64 * 1024
"""The most octets of an answer that are read; an error with its details has some hundreds."""
_IDLE = 3.0
"""Seconds that a connection is kept between requests. Servers close theirs after five or more; a request on
a connection that is being closed is lost, and leaves its mail uncertain."""
_MIN_RATE = 10_000
"""Octets a second that any line is expected to carry; the time allowed for a request grows with its size."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Broken(ConnectionError):
    """The connection failed before there was an answer."""

    def __init__(
        self, text: str, phase: Phase, *, whole: bool, temporary: bool = True, local: bool = False
    ) -> None:
        """Keep the details of the failure.

        Args:
            text: the system's error text.
            phase: CONNECT, TLS or BODY, and DOT once the whole request was sent.
            whole: whether the whole request was sent, so that the server may have executed it.
            temporary: false if it lasts until an operator intervenes.
            local: the cause is on this host, such as a lack of descriptors.
        """
        super().__init__(text)
        self.text = text
        self.phase = phase
        self.whole = whole
        self.temporary = temporary
        self.local = local


class Exchange:
    """One HTTP connection, opened by the first request, and again if the server has closed it meanwhile."""

    def __init__(self, timeouts: Timeouts, source_address: str) -> None:
        self.tls = ""
        """TLS version and cipher of the last answer's connection; empty without TLS."""
        self.whole = False
        """Whether the last request was sent as a whole."""
        self._timeouts = timeouts
        self._source = (source_address, 0) if source_address else None
        self._session: ClientSession | None = None
        self._failure: BaseException | None = None
        self._deadline = asyncio.timeout(None)
        """The deadline for the piece that is being written."""
        self._closing: asyncio.Task[None] | None = None

    async def post(self, request: Request, on_last: Callable[[], None]) -> Answer:
        """Send a request and return its answer, whatever its status.

        The certificate is verified, redirects are not followed, and the environment's proxy is used.

        Args:
            request: streamed in pieces.
            on_last: called right before the last piece is written; if it raises, that piece is not written.

        Raises:
            Broken: there is no answer.
            Exception: any that `on_last` or reading the message raises, even if an answer came before it.
        """
        self.whole, self._failure = False, None
        headers = {**request.headers, "Content-Length": str(request.body.size)}
        data = self._pieces(request, on_last)
        try:
            answer = await self._ask("POST", request.url, request.body.size, headers=headers, data=data)
        except Broken:
            if self._failure:
                raise self._failure from None
            raise
        if self._failure:
            raise self._failure
        return answer

    async def ask(self, method: str, url: str, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """Send a request without a body, and return its answer; raises Broken."""
        self.whole = False
        return await self._ask(method, url, 0, headers=headers)

    async def close(self) -> None:
        if self._session:
            await self._session.close()
        if self._closing:
            await self._closing

    def abort(self) -> None:
        """Drop the connection now; aiohttp finishes closing it in the background."""
        if self._session and not self._closing:
            self._closing = asyncio.get_running_loop().create_task(self._session.close())

    async def _pieces(self, request: Request, on_last: Callable[[], None]) -> AsyncIterator[bytes]:
        try:
            held = b""
            for piece in request.body.pieces():
                if held:
                    self._expect(self._timeouts.body)
                    yield held
                held = piece
            on_last()
        except Exception as failure:
            self._failure = failure  # aiohttp would wrap it
            raise
        self.whole = True
        # aiohttp's own time-out for the answer starts only when the last piece has left its buffer.
        self._expect(self._timeouts.body + self._patience(request.body.size))
        yield held

    def _expect(self, seconds: float) -> None:
        """Limit the time for writing the next piece, for which aiohttp has no time-out."""
        with contextlib.suppress(RuntimeError):  # The deadline has expired or the request is over.
            self._deadline.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _ask(self, method: str, url: str, size: int, **what: Any) -> Answer:  # noqa: ANN401 - aiohttp's
        from aiohttp import ClientError  # noqa: PLC0415 - the import takes 0.2 s, and few runs need it

        self._deadline = asyncio.timeout(None)
        try:
            proxy, login = proxied(url)
            async with (
                self._deadline,
                self._opened().request(
                    method,
                    url,
                    allow_redirects=False,
                    proxy=proxy,
                    proxy_auth=login,
                    timeout=self._limits(size),
                    **what,
                ) as response,
            ):
                self._note_tls(response)
                answer = Answer(response.status, response.headers, await self._beginning(response))
                if "data" in what and not self.whole:
                    response.close()  # The request was not sent completely, so the connection is unusable.
                return answer
        except (ClientError, OSError, ValueError) as error:
            raise self._broken(error) from error

    def _opened(self) -> "ClientSession":
        from aiohttp import ClientSession, TCPConnector  # noqa: PLC0415 - as above

        if self._session is None:
            connector = TCPConnector(
                limit=1,
                keepalive_timeout=_IDLE,
                local_addr=self._source,
                ssl=tls.context(verify=True),
            )
            self._session = ClientSession(connector=connector, trust_env=False)
        return self._session

    def _limits(self, size: int) -> Any:  # noqa: ANN401 - aiohttp's
        from aiohttp import ClientTimeout  # noqa: PLC0415 - as above

        times = self._timeouts
        return ClientTimeout(
            total=None,
            connect=times.connect + times.tls,  # including a proxy's connection
            sock_connect=times.connect,
            sock_read=self._patience(size),
        )

    def _patience(self, size: int) -> float:
        """Return the seconds to wait for the answer to a request of `size` octets."""
        return self._timeouts.dot + size / _MIN_RATE

    def _note_tls(self, response: "ClientResponse") -> None:
        """Set `tls`. An answer without a body has released its connection by now; `tls` is kept then."""
        connection = response.connection
        if connection and connection.transport:
            ssl_object = connection.transport.get_extra_info("ssl_object")
            self.tls = tls.describe(ssl_object, verified=True)

    async def _beginning(self, response: "ClientResponse") -> bytes:
        """Return the body's beginning. Errors are ignored, since the status, which decides, is known."""
        data = b""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._timeouts.connect):
                async for piece in response.content.iter_chunked(16 * 1024):
                    data += piece
                    if len(data) >= _MAX_ANSWER:
                        response.close()
                        break
        return data[:_MAX_ANSWER]

    def _broken(self, error: Exception) -> Broken:
        from aiohttp import (  # noqa: PLC0415 - as above
            ClientConnectorCertificateError,
            ClientConnectorError,
            ClientConnectorSSLError,
            ClientHttpProxyError,
            ConnectionTimeoutError,
        )

        text = "the server stopped reading" if self._deadline.expired() else words_of(error)
        if self.whole:
            return Broken(text, Phase.DOT, whole=True)
        if isinstance(error, ClientConnectorCertificateError):
            return Broken(text, Phase.TLS, whole=False, temporary=False)
        if isinstance(error, ClientConnectorSSLError):
            return Broken(text, Phase.TLS, whole=False)
        if isinstance(error, (ClientHttpProxyError, ClientConnectorError, ConnectionTimeoutError)):
            return Broken(text, Phase.CONNECT, whole=False, local=is_local(error))
        return Broken(text, Phase.BODY, whole=False)
