"""Messages that another relay has accepted: a submission session is told of each, as of any mail.

So they are edited, checked and recorded as all mail is. The login, users' senders and rate limits do not
apply: the client that submitted the message to the other relay cannot be told of a refusal any more.
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
        service: its store has a running committer.
        sender: of its envelope; empty: the null sender.
        recipients: who has not got it yet.
        content: the message, with lines that end in CRLF.
        once: the name of its file in `once/`: what was queued under it is not queued again.
        operator: who has it done, for the journal and the ledger.
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
