"""An SMTP client that submits one message to a session in this process, over a socket pair.

The session does the checks, limits and log lines, so that no rule of submission is implemented twice. All
addresses are checked here first, so that no part of an address can become a command or a parameter.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mailer.mail.address import check_address
from mailer.mail.reply import Reply
from mailer.receive.replies import SHUTTING_DOWN

_GROUP = 50
"""RCPT commands that are pipelined before replies are read; the session buffers 64 KiB of replies."""
_MOST_REFUSED = 20
"""Refused recipients that are reported; the session would end after 100 errors."""
_PLAIN = re.compile(r"[^\x00-\x20\x7f-\x9f<>\"\\,;:\u2028\u2029]+")
_BAD_SENDER = Reply(501, ("5.1.7 The sender is not an address; write it as name@domain",))
_BAD_RECIPIENT = Reply(501, ("5.1.3 This is not one address; write name@domain, each address by itself",))


class Refused(Exception):
    """The session refused the message, or some of its recipients; nothing is queued."""

    def __init__(self, reply: Reply, recipients: dict[str, Reply] | None = None) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.recipients = recipients or {}


@dataclass(frozen=True, slots=True)
class Envelope:
    """The sender and recipients of a message, as the client wrote them, not yet checked."""

    sender: str
    """The sender's address; empty: the null sender."""
    recipients: tuple[str, ...]
    size: int | None = None
    """Octets of the message; None: not known."""
    utf8: bool = False
    """Whether the header has addresses beyond ASCII, so that SMTPUTF8 is needed for any envelope."""


class Dialogue:
    """The client side of one session, a context manager: leaving it ends the session at any point."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begin(cls, connection: socket.socket, name: str) -> Self:
        """Read the greeting of the session at the other end, and say EHLO with `name`; raises Refused."""
        dialogue = cls(*await asyncio.open_connection(sock=connection))
        try:
            await dialogue._expect_positive()
            await dialogue._command(f"EHLO {name}")
        except BaseException:
            dialogue.close()
            raise
        return dialogue

    def close(self) -> None:
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def envelope(self, envelope: Envelope) -> None:
        """Send MAIL and RCPT; raises Refused, which lists the refused recipients, at most twenty."""
        if envelope.sender and not _is_safe(envelope.sender):
            raise Refused(_BAD_SENDER)
        wrong = {each: _BAD_RECIPIENT for each in envelope.recipients if not _is_safe(each)}
        if wrong:
            raise Refused(_BAD_RECIPIENT, dict(list(wrong.items())[:_MOST_REFUSED]))
        utf8 = envelope.utf8 or not "".join((envelope.sender, *envelope.recipients)).isascii()
        size = f" SIZE={envelope.size}" if envelope.size else ""
        await self._command(f"MAIL FROM:<{envelope.sender}> BODY=8BITMIME{size}{' SMTPUTF8' * utf8}")
        refused: dict[str, Reply] = {}
        for group in _groups(envelope.recipients):
            self._write("".join(f"RCPT TO:<{each}>\r\n" for each in group))
            for each in group:
                reply = await self._reply()
                if reply.code == SHUTTING_DOWN.code:
                    raise Refused(reply)
                if not reply.positive:
                    refused[each] = reply
            if len(refused) >= _MOST_REFUSED:
                break
        if refused:
            raise Refused(next(iter(refused.values())), dict(list(refused.items())[:_MOST_REFUSED]))

    async def message(self, pieces: AsyncIterable[bytes], size: int | None) -> Reply:
        """Send the message, and return the positive reply, after which it is durable.

        Args:
            pieces: its octets; if the iterator raises, that is passed on and nothing is queued.
            size: the number of octets; None: not known yet.

        Raises:
            Refused: the message was not accepted.
        """
        if size is not None:
            self._write(f"BDAT {size} LAST\r\n")
        async for piece in pieces:
            if size is None:
                await self._chunk(piece)
            else:
                await self._send(piece)
        if size is None:
            self._write("BDAT 0 LAST\r\n")
        return await self._expect_positive()

    async def _chunk(self, piece: bytes) -> None:
        self._write(f"BDAT {len(piece)}\r\n")
        await self._send(piece)
        await self._expect_positive()

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            # The session closed the connection, and may have sent a reply with the reason.
            raise Refused(await self._reply()) from None

    def _write(self, commands: str) -> None:
        self._writer.write(commands.encode("utf-8", "surrogateescape"))

    async def _command(self, command: str) -> Reply:
        self._write(f"{command}\r\n")
        return await self._expect_positive()

    async def _expect_positive(self) -> Reply:
        reply = await self._reply()
        if not reply.positive:
            raise Refused(reply)
        return reply

    async def _reply(self) -> Reply:
        """Read one reply; raises Refused if the session ended without one, because the server is stopping."""
        lines: list[str] = []
        while True:
            try:
                line = (await self._reader.readline()).decode("utf-8", "replace").rstrip("\r\n")
            except ConnectionError:
                line = ""
            if not line:
                raise Refused(SHUTTING_DOWN)
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), tuple(lines))


def _groups(recipients: Sequence[str]) -> list[Sequence[str]]:
    return [recipients[at : at + _GROUP] for at in range(0, len(recipients), _GROUP)]


def _is_safe(address: str) -> bool:
    """Return whether an address in angle brackets is exactly one path.

    The session decides whether it accepts the address.
    """
    if _PLAIN.fullmatch(address):
        return True
    try:
        check_address(address)
    except ValueError:
        return False
    return True
