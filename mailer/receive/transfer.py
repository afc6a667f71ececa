"""Submits messages that another relay has accepted, for `mailer import`, through a submission session.

So they are edited, checked and logged like all mail. Logins, allowed senders and rate limits do not apply,
because a refusal could no longer reach the client that submitted the message to the other relay.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from mailer.mail.reply import Reply
from mailer.receive.dialogue import Dialogue, Envelope, Refused
from mailer.receive.server import converse
from mailer.receive.service import Client, Service

_PIECE = 64 * 1024


async def transfer(
    service: Service, sender: str, recipients: Sequence[str], content: bytes, *, once: str, operator: str
) -> Reply:
    """Queue a message for its remaining recipients; return the last reply, positive once it is durable.

    Args:
        service: see `Service`; its store has a running committer.
        sender: the envelope sender; empty: the null sender.
        recipients: the recipients that have not received it yet.
        content: the message, with lines that end in CRLF.
        once: the name of its file in `once/`, which keeps it from being queued again.
        operator: the person who runs the import, for the journal and the ledger.
    """
    ours, theirs = socket.socketpair()
    unlimited = replace(
        service,
        authenticator=None,
        rates=None,
        settings=replace(service.settings, require_auth=False),
        store=replace(service.store, once=once),
    )
    serving = asyncio.create_task(converse(unlimited, theirs, Client(f"import:{operator}", local=True)))
    try:
        ours.setblocking(False)
        with await Dialogue.begin(ours, "localhost") as dialogue:
            await dialogue.envelope(Envelope(sender, tuple(recipients), len(content)))
            return await dialogue.message(_pieces(content), len(content))
    except Refused as refused:
        return refused.reply
    finally:
        await serving


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), _PIECE):
        yield content[at : at + _PIECE]
