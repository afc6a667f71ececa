"""Mail to send and hops to send it to, for the tests of the SMTP client."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.outcome import Outcome
from mailer.send.phase import Timeouts
from mailer.send.smtp.client import Session
from mailer.send.smtp.hop import Hop
from outbound.hostile import Server

TEXT = b"Subject: hello\r\n\r\nbody\r\n"
THREE = ("ann@example.net", "bob@example.net", "eve@example.net")

LONG = Timeouts(**dict.fromkeys(Timeouts.__slots__, 60.0))
"""Never reached in a test that passes."""


class Letter:
    """A message in memory."""

    def __init__(
        self,
        body: bytes = TEXT,
        to: Sequence[str] = THREE[:1],
        sender: str = "app@example.com",
        **options: Any,
    ):
        self.envelope = Envelope(sender, tuple(Recipient(address) for address in to), **options)
        self.body = body

    @property
    def size(self) -> int:
        return len(self.body)

    def read(self, offset: int, length: int) -> bytes:
        return self.body[offset : offset + length]


class Password:
    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text


def hop_to(server: Server, **terms: Any) -> Hop:
    return Hop(
        **{
            "name": "localhost",
            "address": "127.0.0.1",
            "port": server.port,
            "ehlo_domain": "me.example",
            **terms,
        }
    )


async def deliver(
    hop: Hop, letter: Letter, timeouts: Timeouts = LONG, committed: list[str] | None = None
) -> list[Outcome]:
    """One session, one transaction, QUIT."""
    session = await Session.open(hop, timeouts)
    try:
        return await session.transact(
            letter,
            letter.envelope.recipients,
            lambda recipients: (committed if committed is not None else []).extend(
                r.address for r in recipients
            ),
        )
    finally:
        await session.close()


def send(server: Server, letter: Letter, timeouts: Timeouts = LONG, **terms: Any) -> list[Outcome]:
    return asyncio.run(deliver(hop_to(server, **terms), letter, timeouts))


def only(**limits: float) -> Timeouts:
    return replace(LONG, **limits)
