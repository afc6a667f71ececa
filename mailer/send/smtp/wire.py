"""One SMTP connection: a `Dialogue` on an asyncio transport, with a deadline for each wait.

It uses a transport and a protocol directly instead of streams, and a `LazyTask` that waits for a reply goes
on within the call that brings it, so that a transaction costs no future and no task.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from mailer.ground.deadline import DeadlineTimer
from mailer.ground.lazy_task import Wait, run_woken
from mailer.ground.shortage import SHORTAGES
from mailer.mail.host_name import is_loopback
from mailer.mail.outcome import Scope
from mailer.mail.reply import printable
from mailer.send.phase import Phase, Timeouts
from mailer.send.smtp import tls
from mailer.send.smtp.concealment import Concealment, masked
from mailer.send.smtp.conversation import KEPT, Kind, Piece
from mailer.send.smtp.events import Broken, Event, Settled
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.machine import Dialogue, State
from mailer.send.smtp.read_first import ReadFirst
from mailer.send.trouble import HopTrouble

if TYPE_CHECKING:
    from mailer.send.smtp.transcript import Say, Transcript

TIMED_OUT = os.strerror(errno.ETIMEDOUT)
_ABORTED = "aborted"

_RECEIVED, _SENT, _MESSAGE, _END = Kind.RECEIVED, Kind.SENT, Kind.MESSAGE, Kind.END
_BODY = State.BODY
"""As globals: see `machine`."""

_READ_SIZE = 16 * 1024
"""Octets read in one call; many replies together are shorter."""


class Wire(asyncio.BufferedProtocol):
    """Moves bytes, enforces deadlines and reports lost connections; `client.Session` decides what to send.

    Once the connection is lost for any reason (the peer, a deadline, `abort`), `broken` holds the `Broken`
    that every later wait returns.
    """

    def __init__(
        self,
        hop: Hop,
        address: str,
        timeouts: Timeouts,
        loop: asyncio.AbstractEventLoop,
        conceal: Concealment | None = None,
        transcript: "Transcript | None" = None,
    ) -> None:
        self.dialogue = Dialogue(conceal)
        self._transcript = transcript
        self.broken: Broken | None = None
        self.hop = hop
        self.label = hop.at(address)
        """The hop's name with the address that accepted the connection."""
        # From `address`, since a socket has forgotten its peer if the connection was reset right away.
        self.loopback = is_loopback(address)
        self.tls = ""
        self.began = monotonic()
        """When it was connected."""
        self.said: deque[Piece] = deque(maxlen=KEPT)
        """What is said in this transaction, see `conversation`; the session clears it."""
        self._said_behind: deque[Piece] | None = None
        """What was said of the transaction that was begun behind the dot; then it becomes `said`."""
        self.is_secret = False
        """Whether what is sent now is an AUTH exchange; set by the session."""
        self._timeouts = timeouts
        self._loop = loop
        self._transport: asyncio.Transport
        self._closed = loop.create_future()
        self._waiter: Wait[Any] | None = None
        """For an event, or for None once the write buffer has room."""
        # Events that came while nothing waited for them: the banner, if it arrives with the end of the TLS
        # handshake or of the connection; a refusal while the message is written; and those of a transaction
        # that was begun behind a dot. All others come while their call waits.
        self._early: deque[Event] = deque()
        self._paused = False
        # Without a buffer of our own, asyncio would map and unmap 256 KiB for each reply of forty octets.
        self._read = memoryview(bytearray(_READ_SIZE))
        self._answered = 0
        self._timer = DeadlineTimer(loop, self._time_out)

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self._transport.set_write_buffer_limits(0)  # `drain` waits until the block before has been sent

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's guess is far too high
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._read[:nbytes])
        if self._transcript:
            self._transcript.received(data)
        self.said.append((monotonic(), _RECEIVED, data, 0))
        for event in self.dialogue.receive(data):
            if isinstance(event, Broken):
                self._break(event)
            else:
                if self._said_behind is not None and isinstance(event, Settled):
                    self._turn_over(data, event.beyond)
                self._wake(event, soon=False)
        self.flush()
        before, self._answered = self._answered, self.dialogue.answered
        if self._waiter and not self._waiter.done:
            if self._answered != before:
                self._timer.arm(self._timeouts.of(self.dialogue.phase))
        else:
            run_woken()

    def connection_lost(self, exc: Exception | None) -> None:
        errno_ = exc.errno if isinstance(exc, OSError) else None
        lost = os.strerror(errno_) if errno_ else "connection closed by the server"
        self._break(Broken(lost, self.dialogue.phase))
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self.dialogue.state is _BODY:  # in other states the waiter waits for an event
            self._wake(None)

    # Called by the session.

    def flush(self) -> None:
        """Write what the dialogue has to send."""
        if out := self.dialogue.outgoing():
            if self._transcript:
                self._transcript.sent(out, secret=self.is_secret)
            self.said.append((monotonic(), _SENT, _masked(out) if self.is_secret else out, 0))
            self._transport.write(out)

    def write(self, data: bytes) -> None:
        """Write a part of the message; its last one after `Dialogue.finish`.

        What the dialogue has to send is written behind it: the commands of the next transaction.
        """
        whole, octets, now = self.dialogue.state is not _BODY, len(data), monotonic()
        if self._transcript:
            self._transcript.sent_message(octets, whole=whole)
        if self.said and self.said[-1][1] is _MESSAGE:
            octets += self.said.pop()[3]
        self.said.append((now, _END if whole else _MESSAGE, b"", octets))
        if out := self.dialogue.outgoing():
            self._said_behind = deque([(now, _SENT, out, 0)], KEPT)
            data += out
        self._transport.write(data)

    def event(self, limit: float = inf) -> Wait[Event]:
        """Return the next event, to be awaited at once; a phase that exceeds its deadline yields `Broken`.

        Args:
            limit: seconds that the next reply may take, if the phase allows more.
        """
        if not self._early and not self.broken:
            return self._wait(self.dialogue.phase, limit)
        wait: Wait[Any] = Wait()
        wait.give(self._early.popleft() if self._early else self.broken)
        return wait

    async def drain(self) -> None:
        """Wait until the write buffer has room, the peer replies, or it is lost; let other tasks run."""
        if self._paused and not self.broken and not self.answered:
            event = await self._wait(Phase.BODY, inf)
            if event and not isinstance(event, Broken):
                self._early.append(event)
        else:
            await asyncio.sleep(0)

    @property
    def answered(self) -> bool:
        """Whether an event has come that `event` has not yet returned."""
        return bool(self._early)

    async def handshake(self) -> None:
        """Start TLS on the connection.

        Raises:
            HopTrouble: the handshake failed; the connection has been dropped.
        """
        limit = self._timeouts.tls
        try:
            async with asyncio.timeout(limit):
                secured = await self._loop.start_tls(
                    self._transport,
                    self,
                    tls.context(verify=self.hop.verify),
                    server_hostname=self.hop.verify_name or self.hop.name,
                    ssl_handshake_timeout=2 * limit,  # so that ours expires first, with our message
                )
        except (OSError, ValueError) as error:  # ValueError: a host name that no certificate can have
            text, temporary = tls.failure(error)
            self._remark(f"TLS: {text}")
            self.abort()
            raise HopTrouble(self.label, Phase.TLS, text, temporary=temporary) from error
        assert secured is not None
        self._transport = (
            secured  # its write buffer keeps its limit, 512 KiB: asyncio's TLS never resumes at 0
        )
        self.tls = tls.describe(secured.get_extra_info("ssl_object"), verified=self.hop.verify)
        self._remark(f"TLS: {self.tls} as {self.hop.verify_name or self.hop.name}")
        if self._transcript:
            self._transcript.note(f"TLS: {self.tls}")

    @property
    def certificate(self) -> dict[str, object]:
        """The peer's certificate as from `ssl.SSLSocket.getpeercert`; empty if it was not verified."""
        return self._transport.get_extra_info("peercert") or {}

    def abort(self) -> None:
        """Drop the connection now; unsent data is discarded."""
        self._break(Broken(_ABORTED, self.dialogue.phase))

    async def close(self) -> None:
        """Drop the connection as `abort` does, and wait until the descriptor is closed."""
        self.abort()
        await self._closed

    def lost(self, kind: type[HopTrouble], broken: Broken) -> HopTrouble:
        """Return the trouble of a session that has ended like this."""
        return kind(self.label, broken.phase, printable(broken.text), reply=broken.reply)

    def _wait(self, phase: Phase, limit: float) -> Wait[Any]:
        waiter: Wait[Any] = Wait()
        self._waiter = waiter
        most = self._timeouts.of(phase)
        self._timer.arm(min(most, limit))
        return waiter

    def _wake(self, event: Event | None, *, soon: bool = True) -> None:
        if self._waiter and not self._waiter.done:
            self._waiter.give(event, soon=soon)
        elif event and not isinstance(event, Broken):
            self._early.append(event)

    def _turn_over(self, data: bytes, beyond: int) -> None:
        """Divide what was read between the transaction that has ended and the one that was begun behind it.

        Args:
            data: what was read; recorded already, as the last piece.
            beyond: how many octets at its end answer the second.
        """
        assert self._said_behind is not None
        at, kind, _, _ = self.said.pop()
        self.said.append((at, kind, data[: len(data) - beyond], 0))
        if beyond:
            self._said_behind.append((at, kind, data[len(data) - beyond :], 0))
        self.said, self._said_behind = self._said_behind, None

    def _break(self, broken: Broken) -> None:
        """Drop the connection and keep the reason; only the first counts, since later ones follow from it."""
        if self.broken:
            return
        self.broken = broken
        if broken.reply is None and broken.text != _ABORTED:
            self._remark(broken.text)
        self._timer.close()
        self._transport.abort()
        if self._waiter:
            self._wake(broken)

    def _remark(self, text: str) -> None:
        self.said.append((monotonic(), Kind.REMARK, text.encode(errors="backslashreplace"), 0))

    def _time_out(self) -> None:
        if self._waiter and not self._waiter.done:  # a deadline counts only while something waits
            self._break(Broken(TIMED_OUT, self.dialogue.phase))


async def connect(
    hop: Hop, timeouts: Timeouts, conceal: Concealment | None = None, say: "Say | None" = None
) -> Wire:
    """Connect to the first of the hop's addresses that answers.

    Args:
        hop: the hop to connect to.
        timeouts: of the session's phases.
        conceal: hides the hop's login in its replies.
        say: called with the lines of a transcript of the session; None: no transcript.

    Raises:
        HopTrouble: no address answers; this is the last one's error, in the system's words ("Connection
            refused").
    """
    loop = asyncio.get_running_loop()
    kind = f" to connect to from {hop.source_address}" if hop.source_address else ""
    trouble = HopTrouble(str(hop), Phase.CONNECT, f"no address{kind}")
    for address in [hop.address] if hop.address else await _look_up(hop, timeouts, loop):
        transcript = _transcript(say, conceal) if say else None
        if transcript:
            transcript.note(f"connecting to {hop.at(address)}")
        try:
            async with asyncio.timeout(timeouts.connect):
                sock = await _connected(hop, address, loop)
                _, wire = await loop.create_connection(
                    partial(Wire, hop, address, timeouts, loop, conceal, transcript), sock=sock
                )
        except OSError as error:
            text = os.strerror(error.errno) if error.errno else TIMED_OUT
            scope = _scope_of(error, hop, address)
            trouble = HopTrouble(hop.at(address), Phase.CONNECT, text, scope=scope)
            trouble.__cause__ = error
            if transcript:
                transcript.note(text)
        else:
            return wire
    raise trouble


def _masked(commands: bytes) -> bytes:
    return b"".join(masked(line).encode() + b"\r\n" for line in commands.decode().splitlines())


def _transcript(say: "Say", conceal: Concealment | None) -> "Transcript":
    from mailer.send.smtp.transcript import Transcript  # noqa: PLC0415 - most sessions have no transcript

    return Transcript(say, conceal)


async def _connected(hop: Hop, address: str, loop: asyncio.AbstractEventLoop) -> socket.socket:
    sock = ReadFirst(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if hop.source_address:
            sock.bind((hop.source_address, 0))
        await loop.sock_connect(sock, (address, hop.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _scope_of(error: OSError, hop: Hop, address: str) -> Scope:
    """Return the scope of a failure to connect."""
    if error.errno == errno.EADDRNOTAVAIL:
        # No free port, or a source address that this machine does not have. Where IPv6 is disabled, this is
        # the error for every IPv6 address.
        return Scope.HOST if ":" in address and not hop.source_address else Scope.LOCAL
    # EACCES and EPERM do not mean a shortage: a local firewall may forbid port 25 and allow 587.
    return Scope.LOCAL if error.errno in SHORTAGES else Scope.HOST


async def _look_up(hop: Hop, timeouts: Timeouts, loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return the name's addresses of the source address's family, in the system's order (RFC 6724)."""
    family = socket.AF_UNSPEC
    if hop.source_address:
        family = socket.AF_INET6 if ":" in hop.source_address else socket.AF_INET
    try:
        async with asyncio.timeout(timeouts.connect):
            found = await loop.getaddrinfo(hop.name, hop.port, family=family, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        text = getattr(error, "strerror", None) or str(error) or TIMED_OUT
        raise HopTrouble(str(hop), Phase.CONNECT, printable(text)) from error
    return list(dict.fromkeys([str(sockaddr[0]) for *_, sockaddr in found]))
