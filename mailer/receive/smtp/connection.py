"""One client's connection: reading, answering, time-outs and the end, below the commands.

It takes the place of aiosmtpd's transport half. That one reads DATA line by line into memory, formats secrets
into log records, cancels a running command when the client closes its sending side, and spends 0.15 ms a
connection in `inspect.getmembers`.

There is no task for a session. Whatever may let it go on (bytes, room for replies, the end of what it waits
for, the server that stops) calls `go_on`, which serves what has come as far as that goes. Most commands are
served within the call that brought them. One that has to wait holds the session (`hold`, `wait_for`) until
what it waits for releases it. So nothing cancels what serves a client, and a commit is never interrupted.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import cast

from aiosmtpd.smtp import SMTP, syntax

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.service import Client
from mailer.receive.settings import Settings
from mailer.receive.smtp.input import HIGH_WATER, EndlessLine, Input, LineTooLong, PeerGone

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
            on_end: called once when the connection is closed and nothing is served any more.
        """
        # Not SMTP.__init__: see above. Nor that of asyncio's StreamReaderProtocol, which makes a reader.
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.input = Input()
        self.client = client
        self.peer = client.peer
        self.tls = ""
        """Version and cipher; empty: in clear."""
        self.closing = False
        """Nothing more is served."""
        self.ended = self.loop.create_future()
        """Done when nothing is served any more, and what was unfinished is given up."""
        self._takes: Callable[[], bool] = self._take_command
        self._holds = 1
        """Until there is a connection."""
        self._serving = False
        self._news: asyncio.Future[None] | None = None
        """Of a coroutine that waits in `_more`."""
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._stream: asyncio.Transport | None = None
        self._on_end = on_end
        self._unsent = bytearray()
        self._writable = True
        """The client reads its replies, as far as the transport knows."""
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
        # No isinstance: uvloop's transports are asyncio's in behaviour, not by class.
        self._attach(cast("asyncio.Transport", transport))
        self.greet()
        self.set_timeout(self.settings.idle_timeout)
        self.release()
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
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.go_on()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return _READ if self._trusted else _READ[:_READ_BEFORE]

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(_READ[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        self.input.feed(data)
        self.go_on()
        if self._holds or not self._writable:
            self.input.restrain()

    def eof_received(self) -> bool:
        """Go on answering a client that closed its sending side only; TLS cannot (it closes both)."""
        self.input.end()
        self.go_on()
        return self._stream is not None and not self.tls

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._stream is None:
            return
        self._stream = None
        self._writable = True
        if self._timer is not None:
            self._timer.cancel()
        self.input.clear()
        if self.ended.done():
            self._on_end(self)
        else:
            self.go_on()

    # What the server calls.

    def stop(self) -> None:
        """Say 421 as soon as nothing of this client is in flight."""
        self._stopping = True
        self.go_on()

    def drain(self) -> None:
        """Do as `stop`, but after the next message of a client that is not idle."""
        self._draining = True
        idle_at = self._spoke + self.settings.drain_quiet
        if self.loop.time() >= idle_at:
            self.stop()
        elif not self.ended.done():
            self.loop.call_at(idle_at, self.drain)

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.closing = True
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

    def hold(self) -> None:
        """Serve nothing until `release` is called as often."""
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1
        self.go_on()

    def wait_for(self, rest: Coroutine[object, object, None]) -> None:
        """Serve nothing until this has ended; what it raises ends the session as what a command raises."""
        self.hold()
        self.loop.create_task(rest).add_done_callback(self._waited)

    def _waited(self, rest: asyncio.Task[None]) -> None:
        if error := asyncio.CancelledError() if rest.cancelled() else rest.exception():
            self._fail(error)
            self.go_on()
            return
        if self._takes == self._take_command:
            self.set_timeout(self.settings.idle_timeout)
        self.release()

    def read_by(self, takes: Callable[[], bool] | None) -> None:
        """Have this take what comes, instead of commands; None: commands again.

        Args:
            takes: takes of `input` what it can use, and tells whether to go on: False while there is nothing.
        """
        self._takes = takes or self._take_command
        if takes is None:
            self.set_timeout(self.settings.idle_timeout)

    async def flush(self) -> None:
        """Write what was said, and wait while the client does not read.

        Raises:
            ConnectionError: the connection is lost.
        """
        self._write()
        while not self._writable:
            await self._more()
        if self._stream is None:
            raise PeerGone

    def _write(self) -> None:
        if self._unsent:
            if self._stream is not None:
                self._stream.write(bytes(self._unsent))
            self._unsent.clear()

    async def read_line(self) -> bytes:
        """Return the next line with its line end.

        Raises:
            LineTooLong, EndlessLine: as `Input.take_line`.
            PeerGone: there is none, and none will come.
            Stopping: there is none yet, and the server is stopping.
        """
        while (line := self.input.take_line()) is None:
            await self.flush()
            if self._stopping:
                raise Stopping
            if self.input.ended:
                raise PeerGone
            self.input.want()
            await self._more()
        return line

    async def _more(self) -> None:
        """Wait until `go_on` is called."""
        self._news = self.loop.create_future()
        await self._news

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
    def serve(self, line: bytes) -> None:
        """Serve one command line, given with its line end, or begin to and hold the session."""

    @abstractmethod
    def left(self) -> None:
        """Give up what is unfinished: no more commands are served."""

    @abstractmethod
    def failed(self, error: BaseException) -> None:
        """Take note of a defect of ours; the client gets a 421."""

    def go_on(self) -> None:
        """Serve what has come, as far as that goes; called when there may be something to go on with."""
        if self._news is not None:
            news, self._news = self._news, None
            if not news.done():
                news.set_result(None)
        if self._serving or self._holds or self.ended.done():
            return
        self._serving = True
        try:
            self._serve_input()
        except Exception as error:  # noqa: BLE001 - a defect of ours ends one session, never the server
            self._fail(error)
        except BaseException:
            # The process is to end, and says no more: what waits for this session waits no longer.
            self._unsent.clear()
            self._close()
            raise
        if self.closing and not self._holds:
            self._end()
        else:
            self._serving = False

    def _serve_input(self) -> None:
        most = _MAX_UNSENT if self._trusted else _MAX_UNSENT_BEFORE
        while not (self._holds or self.closing) and self._writable:
            if self._stopping and self._takes == self._take_command:
                raise Stopping
            if not self._takes():
                self._write()
                if self._stream is None or self.input.ended:
                    raise PeerGone
                if self.input.paused:
                    self.input.want()
                return
            if len(self._unsent) > most:
                self._write()

    def _take_command(self) -> bool:
        try:
            line = self.input.take_line()
        except LineTooLong:
            self.say(replies.LINE_TOO_LONG)
        else:
            if line is None:
                return False
            self.set_timeout(self.settings.idle_timeout)
            self.serve(line)
        # Nothing is waited for, and nothing written, while a command holds the session: after 220 to STARTTLS
        # nothing may be read before the handshake. What takes the rest instead may need no more of it.
        return self.input.pending or self._holds > 0 or self.closing or self._takes != self._take_command

    def _fail(self, error: BaseException) -> None:
        """End the session for this reason; nothing is waited for any more."""
        self._holds = 0
        match error:
            case PeerGone():
                self.closing = True
            case ConnectionError():
                self.abort()
            case Stopping():
                self.hang_up(replies.SHUTTING_DOWN)
            case EndlessLine():
                self.hang_up(replies.ENDLESS_LINE)
            case _:
                self._note(error)
                self.hang_up(replies.INTERNAL_ERROR)

    def _note(self, error: BaseException) -> None:
        try:
            self.failed(error)
        except Exception as worse:  # noqa: BLE001 - the session has to end all the same
            self.loop.call_exception_handler({"message": "a defect was not logged", "exception": worse})

    def _end(self) -> None:
        """Close the connection, once: `_serving` stays set.

        TLS delivers within `close` what had come before, and so calls `go_on`.
        """
        try:
            self.left()
        except Exception as error:  # noqa: BLE001 - the server waits for `ended` when it stops
            self._note(error)
        finally:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.write(bytes(self._unsent))
            self._stream.close()
            self.set_timeout(_LINGER)
        self.ended.set_result(None)
        if self._stream is None:
            self._on_end(self)
