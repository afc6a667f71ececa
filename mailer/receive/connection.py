"""One client's connection: reading, answering, time-outs and the end, below the commands.

It takes the place of aiosmtpd's transport half. That one reads DATA line by line into memory, formats secrets
into log records, cancels a running command when the client closes its sending side, and spends 0.15 ms a
connection in `inspect.getmembers`. Here what serves the client is never cancelled: what the connection does
to it is said by `PeerGone`, at a place where it reads, so a commit is never interrupted.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import cast

from aiosmtpd.smtp import SMTP, syntax

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.input import HIGH_WATER, EndlessLine, Input, LineTooLong, PeerGone
from mailer.receive.service import Client
from mailer.receive.settings import Settings
from mailer.receive.steps import Steps

__all__ = ["Connection", "Stopping", "syntax"]  # aiosmtpd's `syntax` is for the verbs of the subclasses

_LINGER = 30.0
"""Seconds for a client to fetch our last words."""
HANDSHAKE_TIMEOUT = 30.0
"""Seconds for a TLS handshake."""
_MAX_UNSENT = 64 * 1024
"""Octets of replies to commands sent ahead that are gathered before they must be written."""
_MAX_UNSENT_BEFORE = 4 * 1024
"""The same, and what waits in the transport, for a client that has not logged in."""
_READ_BEFORE = 4 * 1024
"""Octets taken from such a client at once; asyncio alone takes 256 KiB."""
_PERMANENT = 500
_READ = memoryview(bytearray(256 * 1024))
"""Where transports put what comes, one at a time: it is taken out before anything else runs."""


class Stopping(Exception):
    """The server is stopping, and this client has nothing in flight."""


class Connection(SMTP, asyncio.BufferedProtocol, ABC):
    """The transport half of a session; a subclass says what commands do."""

    def __init__(self, client: Client, settings: Settings, on_end: Callable[["Connection"], None]) -> None:
        """Make ready for one connection.

        Args:
            client: who is at the other end.
            settings: the receiver's.
            on_end: called once when the connection is closed and its task has ended.
        """
        # Not SMTP.__init__: see above. No StreamReader either; `Input` is told of every byte.
        asyncio.StreamReaderProtocol.__init__(
            self,
            None,  # type: ignore[arg-type]  # which asyncio takes and typeshed does not know
            loop=asyncio.get_running_loop(),
        )
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        steps = Steps(self._handle_client, self.loop)
        self.input = Input(steps.go_on)
        self.client = client
        self.peer = client.peer
        self.tls = ""
        """Version and cipher; empty: in clear."""
        self.closing = False
        self.task = steps.ended
        """Done when nothing is served any more."""
        self._steps = steps
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._stream: asyncio.Transport | None = None
        self._on_end = on_end
        self._unsent = bytearray()
        # Not asyncio's StreamWriter: it closes its transport when STARTTLS puts another in its place.
        self._writable = asyncio.Event()
        self._writable.set()
        self._stopping = False
        self._draining = False
        self._spoke = self.loop.time()
        """When its last command had been served."""
        self._errors = 0
        self._trusted = False
        self._giving_way = False
        self._in_handshake = False
        self.before_tls: Callable[[Connection], None] = lambda _: None
        """Told before a handshake that the client asks for."""

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        # No isinstance: uvloop's transports are asyncio's in behaviour, not by class.
        self._attach(cast("asyncio.Transport", transport))
        self.task.add_done_callback(self._ended)
        self._steps.go_on()
        if self._giving_way:
            self.give_way()

    def _attach(self, transport: asyncio.Transport) -> None:
        self._stream = transport
        self.input.attach(transport)
        if not self._trusted:
            transport.set_write_buffer_limits(_MAX_UNSENT_BEFORE)
        session: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        cipher = session.cipher() if session else None
        if session and cipher:
            self.tls = f"{session.version()} {cipher[0]}"

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return _READ if self._trusted else _READ[:_READ_BEFORE]

    def buffer_updated(self, nbytes: int) -> None:
        self.input.feed(_READ[:nbytes])

    def data_received(self, data: bytes) -> None:
        self.input.feed(data)

    def eof_received(self) -> bool:
        """Go on answering a client that closed its sending side only; TLS cannot (it closes both)."""
        self.input.end()
        return self._stream is not None and not self.tls

    def connection_lost(self, error: Exception | None) -> None:
        if self._stream is None:
            return
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self._stream = None
        self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
        self.input.clear()
        self._ended()

    def _ended(self, _: object = None) -> None:
        if self._stream is None and self.task.done():
            self._on_end(self)

    # What the server calls.

    def stop(self) -> None:
        """Say 421 as soon as nothing of this client is in flight."""
        self._stopping = True
        self.input.wake()

    def drain(self) -> None:
        """Do as `stop`, but after the next message of a client that is not idle."""
        self._draining = True
        idle_at = self._spoke + self.settings.drain_quiet
        if self.loop.time() >= idle_at:
            self.stop()
        elif not self.task.done():
            self.loop.call_at(idle_at, self.drain)

    def abort(self) -> None:
        """Drop the connection without a word."""
        if self._stream is not None:
            self._stream.abort()

    @property
    @abstractmethod
    def known(self) -> bool:
        """The client has logged in, or has been let to send without."""

    @property
    def gone(self) -> bool:
        """Nobody is there to be answered, or is to be: the server stops."""
        return self._stream is None or self._stopping

    @property
    def silent(self) -> bool:
        """The client has closed its side."""
        return self.input.ended

    def give_way(self) -> None:
        """Close the connection of a client that is not known: another needs the place."""
        self._giving_way = True
        if self._stream is None:
            return  # as soon as there is one
        if self._in_handshake or self._stream.get_write_buffer_size():
            self._stream.abort()
        else:
            self._stream.write(replies.wire(replies.TOO_MANY_CONNECTIONS))
            self._stream.close()

    # What commands call.

    def trust(self) -> None:
        """The client is known: it may send and be sent more at once."""
        if not self._trusted and self._stream is not None:
            self._trusted = True
            self.input.high_water = HIGH_WATER
            self._stream.set_write_buffer_limits(_MAX_UNSENT)

    def say(self, reply: Reply) -> None:
        """Answer. Replies to commands sent ahead go out together (RFC 2920 3.2)."""
        self._unsent += replies.wire(reply)
        if reply.code >= _PERMANENT:
            self._errors += 1
            if self._errors > self.settings.max_errors and not self.closing:
                self.hang_up(replies.TOO_MANY_ERRORS)

    def forgive(self) -> None:
        """A message was accepted: whatever was wrong before, this client does real work."""
        self._errors = 0
        self._stopping |= self._draining

    def challenge(self, text: bytes) -> None:
        """Ask for the next response of an authentication exchange (RFC 4954 4)."""
        self._unsent += b"334 " + text + b"\r\n"

    def hang_up(self, reply: Reply) -> None:
        """Answer, and close the connection once the running command has returned."""
        self.closing = True
        self.say(reply)

    async def flush(self) -> None:
        """Write what was said, and wait while the client does not read.

        Raises:
            ConnectionError: the connection is lost.
        """
        if self._unsent and not self._written():
            await self._writable.wait()
        if self._stream is None:
            raise PeerGone

    def _written(self) -> bool:
        """Hand what was said to the transport; tell whether the client reads on."""
        if self._stream is not None:
            self._stream.write(bytes(self._unsent))
        self._unsent.clear()
        return self._writable.is_set()

    async def read_line(self) -> bytes:
        """Return the next line with its line end.

        Raises:
            LineTooLong, EndlessLine: as `Input.take_line`.
            PeerGone: there is none, and none will come.
            Stopping: there is none yet, and the server is stopping.
        """
        line = self.input.take_line()
        while line is None:
            if self._unsent and not self._written():
                await self._writable.wait()
            if self._stream is None:
                raise PeerGone
            if self._stopping:
                raise Stopping
            await self.input.more()
            line = self.input.take_line()
        return line

    async def read_chunk(self) -> bytes:
        """Return what has come, at least one byte.

        Raises:
            PeerGone: nothing more will come.
        """
        while not self.input.pending:
            await self.flush()
            await self.input.more()
        return self.input.take()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Send what was said, and go on in TLS; what the client sent ahead in clear is forgotten.

        Raises:
            ConnectionError: the handshake failed, and the connection is gone.
        """
        stream = self._stream
        if stream is None:
            raise PeerGone
        # Nothing may be read between here and the handshake: it would be taken for what came in TLS
        # (CVE-2011-0411).
        stream.pause_reading()
        self.input.discard()
        await self.flush()
        self.pause_timeout()
        self.before_tls(self)
        self._in_handshake = True
        try:
            secure = await self.loop.start_tls(
                stream, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )
        except (OSError, TimeoutError) as error:
            stream.abort()
            self.connection_lost(None)
            raise PeerGone from error
        self._in_handshake = False
        if secure is None:
            # asyncio's way to say that the connection was lost meanwhile.
            self.connection_lost(None)
            raise PeerGone
        self._attach(secure)

    def set_timeout(self, seconds: float) -> None:
        """Close the connection unless this is called again, or `pause_timeout`, in that time.

        One timer serves them all: it is replaced only for an earlier deadline, and one that comes too early
        goes to sleep again.
        """
        self._spoke = self.loop.time()
        self._deadline = self._spoke + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_at(self._deadline, self._tick)

    def pause_timeout(self) -> None:
        """Wait without limit: the next move is ours."""
        self._deadline = None

    def _tick(self) -> None:
        self._timer = None
        if self._stream is None or self._deadline is None:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._tick)
        else:
            self._time_out(self._stream)

    def _time_out(self, stream: asyncio.Transport) -> None:
        if self.closing or stream.get_write_buffer_size():
            # It does not read: waiting for it to fetch our last words would wait forever.
            stream.abort()
        else:
            stream.write(replies.wire(replies.TIMED_OUT))
            stream.close()

    # What serves the client.

    @abstractmethod
    def greet(self) -> None:
        """Say the banner."""

    @abstractmethod
    def serve(self, line: bytes) -> Awaitable[None] | None:
        """Serve one command line, given with its line end.

        Returns:
            None: it has been served, as most are; otherwise what serves the rest of it, which has to wait.
        """

    @abstractmethod
    def left(self) -> None:
        """Give up what is unfinished: no more commands are served."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Take note of a defect of ours; the client gets a 421."""

    async def _handle_client(self) -> None:
        try:
            self.greet()
            await self._serve_commands()
        except PeerGone:
            pass
        except ConnectionError:
            self.abort()
        except Stopping:
            self.hang_up(replies.SHUTTING_DOWN)
        except EndlessLine:
            self.hang_up(replies.ENDLESS_LINE)
        except Exception as error:  # noqa: BLE001 - a defect of ours ends one session, never the server
            self.failed(error)
            self.hang_up(replies.INTERNAL_ERROR)
        finally:
            self.left()
            self._close()

    async def _serve_commands(self) -> None:
        while not self.closing:
            if self._stopping:
                raise Stopping
            self.set_timeout(self.settings.idle_timeout)
            try:
                line = await self.read_line()
            except LineTooLong:
                self.say(replies.LINE_TOO_LONG)
            else:
                if (rest := self.serve(line)) is not None:
                    await rest
            if len(self._unsent) > (_MAX_UNSENT if self._trusted else _MAX_UNSENT_BEFORE):
                await self.flush()

    def _close(self) -> None:
        self.closing = True
        if self._stream is not None:
            self._stream.write(bytes(self._unsent))
            self._stream.close()
            self.set_timeout(_LINGER)
