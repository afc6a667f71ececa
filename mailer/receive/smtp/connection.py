"""One client's connection, below the commands: reads input, writes replies, enforces time-outs, and closes.

It replaces the transport half of aiosmtpd, which reads DATA line by line into memory, formats secrets
into log records, cancels a running command when the client closes its sending side, and spends 0.15 ms a
connection in `inspect.getmembers`.

A session has no task. Every event that may let it continue (input, room to write, the end of an operation
that it waits for, a stopping server) calls `go_on`, which serves as much of the input as possible. Most
commands are served within the call that brought them. A command that has to wait holds the session (`hold`,
`wait_for`) until the operation ends and releases it. So no code that serves a client is ever cancelled, and a
commit is never interrupted.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from math import inf
from typing import cast

from aiosmtpd.smtp import SMTP, syntax

from mailer.ground.deadline import DeadlineTimer
from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.context import Client
from mailer.receive.settings import Settings
from mailer.receive.smtp.input import HIGH_WATER, EndlessLine, Input, LineTooLong, PeerGone

__all__ = ["Connection", "Stopping", "syntax"]  # aiosmtpd's `syntax` is for the verbs of the subclasses

_LINGER = 30.0
"""Seconds that a client gets to read the last replies before the connection is aborted."""
HANDSHAKE_TIMEOUT = 30.0
"""Seconds for a TLS handshake."""
_MAX_UNSENT = 64 * 1024
"""Octets of replies to pipelined commands that are gathered before they must be written."""
_MAX_UNSENT_BEFORE_LOGIN = 4 * 1024
"""The same for a client that has not logged in; also the limit on its unsent replies in the transport."""
_MAX_READ_BEFORE_LOGIN = 4 * 1024
"""Octets per read from such a client; asyncio's default is 256 KiB."""
_PERMANENT_ERROR = 500
_READ_BUFFER = memoryview(bytearray(256 * 1024))
"""The buffer that all transports read into. They can share it, because `buffer_updated` copies the octets out
before any other connection runs."""
_READ_BUFFER_BEFORE_LOGIN = _READ_BUFFER[:_MAX_READ_BEFORE_LOGIN]


class Stopping(Exception):
    """The server is stopping, and this client has no message in flight."""


class Reading(asyncio.BufferedProtocol):
    """What a transport calls, for a `Connection`.

    A connection does not implement it itself: aiosmtpd's SMTP is an `asyncio.Protocol`, and to one of these
    uvloop passes all that it reads, up to 256 KiB, also for a client that has not logged in.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return _READ_BUFFER if self._connection.trusted else _READ_BUFFER_BEFORE_LOGIN

    def buffer_updated(self, nbytes: int) -> None:
        connection = self._connection
        connection.input.buffer += _READ_BUFFER[:nbytes]
        connection.go_on()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.connection_lost(error)


class Connection(SMTP, ABC):
    """The transport half of a session; a subclass implements the commands.

    It and its subclasses have slots, because CPython calls the methods of an object more slowly if it has a
    dictionary with more than 29 attributes.
    """

    __slots__ = (
        "_draining",
        "_errors",
        "_giving_way",
        "_holds",
        "_in_handshake",
        "_most_unsent",
        "_news",
        "_on_end",
        "_serving",
        "_stopping",
        "_stream",
        "_takes",
        "_unsent",
        "_writable",
        "before_tls",
        "client",
        "closing",
        "ended",
        "input",
        "loop",
        "peer",
        "settings",
        "timer",
        "tls",
        "trusted",
    )

    def __init__(self, client: Client, settings: Settings, on_end: Callable[["Connection"], None]) -> None:
        """Prepare to serve one connection.

        Args:
            client: the client at the other end.
            settings: the receiver's settings.
            on_end: called once, when the connection is closed and the session has ended.
        """
        # SMTP.__init__ is not called, for the reasons above. Neither is that of asyncio's
        # StreamReaderProtocol, which would create a reader.
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.input = Input()
        self.client = client
        self.peer = client.peer
        self.tls = ""
        """TLS version and cipher; empty without TLS."""
        self.closing = False
        """Whether to close once the running command has returned; no further command is served."""
        self.ended = self.loop.create_future()
        """Done when the session has ended and an unfinished message has been dropped."""
        self._takes: Callable[[], bool] | None = None
        """Consumes the input at present, see `read_by`; None: the command reader does."""
        self._holds = 1
        """How many holds are in force. The first lasts until `connection_made`."""
        self._serving = False
        self._news: asyncio.Future[None] | None = None
        """Wakes a coroutine that waits in `_more`."""
        self.timer = DeadlineTimer(self.loop, self._time_out)
        """Closes the connection, unless it is armed again or suspended before: it is armed at each command,
        and suspended while the client waits for this server."""
        self._stream: asyncio.Transport | None = None
        self._on_end = on_end
        self._unsent = b""
        """Replies to be written. Usually there is one, which `+=` then takes over without a copy."""
        self._writable = True
        """Whether the transport accepts replies: False while the client does not read them."""
        self._stopping = False
        self._draining = False
        self._errors = 0
        self.trusted = False
        """Whether the client is known, and so may have larger buffers."""
        self._most_unsent = _MAX_UNSENT_BEFORE_LOGIN
        self._giving_way = False
        self._in_handshake = False
        self.before_tls: Callable[[Connection], None] = lambda _: None
        """Called before a handshake that the client asked for with STARTTLS."""

    # Called by the transport, through `Reading`.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance check: uvloop's transports behave like asyncio's but are not subclasses.
        self._attach(cast("asyncio.Transport", transport))
        self.greet()
        self.timer.arm(self.settings.idle_timeout)
        self.release()
        if self._giving_way:
            self.give_way()

    def _attach(self, transport: asyncio.Transport) -> None:
        self._stream = transport
        self.input.attach(transport)
        if not self.trusted:
            transport.set_write_buffer_limits(_MAX_UNSENT_BEFORE_LOGIN)
        session: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        cipher = session.cipher() if session else None
        if session and cipher:
            self.tls = f"{session.version()} {cipher[0]}"

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.go_on()

    def eof_received(self) -> bool:
        """Keep answering a client that has closed only its sending side; in TLS both sides are closed."""
        self.input.end()
        self.go_on()
        return self._stream is not None and not self.tls

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._stream is None:
            return
        self._stream = None
        self._writable = True
        self.timer.close()
        self.input.clear()
        if self.ended.done():
            self._on_end(self)
        else:
            self.go_on()

    # Called by the server.

    def stop(self) -> None:
        """Send 421 and close as soon as this client has no message in flight."""
        self._stopping = True
        self.go_on()

    def drain(self) -> None:
        """Stop as `stop` does, but let a client that is not idle send one more message first."""
        self._draining = True
        idle_at = self.timer.armed_at + self.settings.drain_quiet
        if self.loop.time() >= idle_at:
            self.stop()
        elif not self.ended.done():
            self.loop.call_at(idle_at, self.drain)

    def abort(self) -> None:
        """Drop the connection without a reply."""
        self.closing = True
        if self._stream is not None:
            self._stream.abort()

    @property
    @abstractmethod
    def authenticated(self) -> bool:
        """Whether the client has logged in, or was allowed to send without a login."""

    @property
    def lost(self) -> bool:
        """Whether the client gets no more replies: the connection is lost, or the server is stopping."""
        return self._stream is None or self._stopping

    @property
    def half_closed(self) -> bool:
        """Whether the client has closed its sending side."""
        return self.input.ended

    @property
    def busy(self) -> bool:
        """Whether this server is at work for the client, or the connection is being closed."""
        return self._holds > 0 or self.closing or self._giving_way

    @property
    def idle_since(self) -> float:
        """When the last command came, in the loop's time; inf if `busy`, or while a message arrives."""
        return inf if self.busy or self._takes is not None else self.timer.armed_at

    def give_way(self) -> None:
        """Close the connection to make room for another client."""
        self._giving_way = True
        if self._stream is None:
            return  # `connection_made` will do it
        if self._in_handshake or self._stream.get_write_buffer_size():
            self._stream.abort()
        else:
            self._stream.write(replies.wire(replies.TOO_MANY_CONNECTIONS))
            self._stream.close()

    # Called by commands.

    def trust(self) -> None:
        """Raise the buffer limits: the client is known."""
        if not self.trusted and self._stream is not None:
            self.trusted, self._most_unsent = True, _MAX_UNSENT
            self.input.high_water = HIGH_WATER
            self._stream.set_write_buffer_limits(_MAX_UNSENT)

    def send_reply(self, reply: Reply) -> None:
        """Queue a reply. Replies to pipelined commands are sent together (RFC 2920 3.2)."""
        self._unsent += replies.wire(reply)
        if reply.code >= _PERMANENT_ERROR:
            self._errors += 1
            if self._errors > self.settings.max_errors and not self.closing:
                self.close_with(replies.TOO_MANY_ERRORS)

    def forgive(self) -> None:
        """Reset the count of errors: a message was accepted, so the client does real work."""
        self._errors = 0
        self._stopping |= self._draining

    def challenge(self, text: bytes) -> None:
        """Ask for the next response of an authentication exchange (RFC 4954 4)."""
        self._unsent += b"334 " + text + b"\r\n"

    def close_with(self, reply: Reply) -> None:
        """Queue a reply, and close the connection once the running command has returned."""
        self.closing = True
        self.send_reply(reply)

    def hold(self) -> None:
        """Serve nothing until `release` has been called once for each call of this."""
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1
        self.go_on()

    def wait_for(self, rest: Coroutine[object, object, None]) -> None:
        """Run a coroutine, and serve nothing until it has ended.

        An exception from it ends the session, as one from a command does.
        """
        self.hold()
        self.loop.create_task(rest).add_done_callback(self._waited)

    def _waited(self, rest: asyncio.Task[None]) -> None:
        if error := asyncio.CancelledError() if rest.cancelled() else rest.exception():
            self._fail(error)
            self.go_on()
            return
        if self._takes is None:
            self.timer.arm(self.settings.idle_timeout)
        self.release()

    def read_by(self, takes: Callable[[], bool] | None) -> None:
        """Have a function consume the input in place of the command reader; None restores that.

        Args:
            takes: takes what it can use from `input`, and returns whether to call it again immediately; False
                means that it needs more input.
        """
        self._takes = takes
        if takes is None:
            self.timer.arm(self.settings.idle_timeout)

    async def flush(self) -> None:
        """Write the queued replies, and wait until the client has read enough of them.

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
                self._stream.write(self._unsent)
            self._unsent = b""

    async def read_line(self) -> bytes:
        """Return the next line with its line end.

        Raises:
            LineTooLong, EndlessLine: as `Input.read_line`.
            PeerGone: the client has sent no whole line, and will send no more.
            Stopping: there is no whole line yet, and the server is stopping.
        """
        while (line := self.input.read_line()) is None:
            await self.flush()
            if self._stopping:
                raise Stopping
            if self.input.ended:
                raise PeerGone
            self.input.resume()
            await self._more()
        return line

    async def _more(self) -> None:
        """Wait until `go_on` is called."""
        self._news = self.loop.create_future()
        await self._news

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Send the queued replies, discard input that was sent ahead in clear, and continue in TLS.

        Raises:
            ConnectionError: the handshake failed, and the connection is gone.
        """
        stream = self._stream
        if stream is None:
            raise PeerGone
        # Nothing may be read between here and the handshake: it would be taken for input inside TLS
        # (CVE-2011-0411).
        stream.pause_reading()
        self.input.discard()
        await self.flush()
        self.timer.suspend()
        self.before_tls(self)
        self._in_handshake = True
        try:
            secure = await self.loop.start_tls(
                stream, Reading(self), context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )
        except (OSError, TimeoutError) as error:
            stream.abort()
            self.connection_lost(None)
            raise PeerGone from error
        self._in_handshake = False
        if secure is None:
            # asyncio returns None if the connection was lost meanwhile.
            self.connection_lost(None)
            raise PeerGone
        self._attach(secure)

    def _time_out(self) -> None:
        stream = self._stream
        if stream is None:
            return
        if self.closing or stream.get_write_buffer_size():
            # The client does not read; a graceful close would wait forever.
            stream.abort()
        else:
            stream.write(replies.wire(replies.TIMED_OUT))
            stream.close()

    # Serves the client.

    @abstractmethod
    def greet(self) -> None:
        """Queue the greeting."""

    @abstractmethod
    def serve(self, line: bytes) -> None:
        """Serve one command line, given with its line end; a command that has to wait holds the session."""

    @abstractmethod
    def left(self) -> None:
        """Drop an unfinished message: no more commands are served."""

    @abstractmethod
    def failed(self, error: BaseException) -> None:
        """Log a defect in this program; the client gets a 421."""

    def go_on(self) -> None:
        """Serve as much input as possible; called after every event that may let the session continue."""
        if self._serving or self._holds:
            self._go_on_later()
            return
        self._serving = True
        try:
            self._serve_input()
        except Exception as error:  # noqa: BLE001 - a defect ends one session, never the server
            self._fail(error)
        except BaseException:
            # The process is ending: send nothing more, and let no waiter wait for this session.
            self._unsent = b""
            self._close()
            raise
        if self.closing and not self._holds:
            self._end()
        else:
            self._serving = False

    def _go_on_later(self) -> None:
        """Wake the coroutine that may wait for the event, and keep the client from sending too much."""
        if self._news is not None:
            news, self._news = self._news, None
            if not news.done():
                news.set_result(None)
        if self._holds:
            self.input.pause_if_full()

    def _serve_input(self) -> None:
        """Serve the client until a command holds the session, or more input is needed; then send the replies.

        Raises:
            PeerGone: more is needed, and will not come.
            Stopping: the next command is not served, because the server is stopping.
            EndlessLine: as `Input.read_line`.
        """
        unread = self.input
        while not (self._holds or self.closing) and self._writable:
            if (takes := self._takes) is not None:
                if not takes():
                    break
            elif self._stopping:
                raise Stopping
            elif not self._serve_command():
                break
            if len(self._unsent) > self._most_unsent:
                self._write()
        else:
            # Nothing may be read on here: after the 220 to STARTTLS, the handshake follows.
            if not self.closing:
                unread.pause_if_full()
            return
        self._write()
        if self._stream is None or unread.ended:
            raise PeerGone
        if unread.paused:
            unread.resume()

    def _serve_command(self) -> bool:
        """Serve the next line; return False to send the replies and read on."""
        try:
            line = self.input.read_line()
        except LineTooLong:
            self.send_reply(replies.LINE_TOO_LONG)
            return True
        if line is None:
            return False
        self.timer.arm(self.settings.idle_timeout)
        self.serve(line)
        # A new reader (`read_by`) may need no more input.
        return bool(self.input.buffer or self._takes or self._holds or self.closing)

    def _fail(self, error: BaseException) -> None:
        """End the session because of an error, and cancel all holds."""
        self._holds = 0
        match error:
            case PeerGone():
                self.closing = True
            case ConnectionError():
                self.abort()
            case Stopping():
                self.close_with(replies.SHUTTING_DOWN)
            case EndlessLine():
                self.close_with(replies.ENDLESS_LINE)
            case _:
                self._note(error)
                self.close_with(replies.INTERNAL_ERROR)

    def _note(self, error: BaseException) -> None:
        try:
            self.failed(error)
        except Exception as worse:  # noqa: BLE001 - the session has to end all the same
            self.loop.call_exception_handler({"message": "a defect was not logged", "exception": worse})

    def _end(self) -> None:
        """Close the connection, once.

        `_serving` stays set, because a TLS transport delivers pending input within `close`, which calls
        `go_on`.
        """
        try:
            self.left()
        except Exception as error:  # noqa: BLE001 - the server waits for `ended` when it stops
            self._note(error)
        finally:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            stream = self._stream
            stream.write(self._unsent)
            stream.close()
            # TLS waits for the client's last words; otherwise a transport without unsent octets is gone soon.
            if self.tls or stream.get_write_buffer_size():
                self.timer.arm(_LINGER)
        self.ended.set_result(None)
        if self._stream is None:
            self._on_end(self)
