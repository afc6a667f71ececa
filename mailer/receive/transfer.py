"""Submits mail for an operator through a submission session: for `mailer import` and `mailer spool replay`.

So it is edited, checked and logged like all mail. There is no login, and so no user with allowed senders.
Rate limits do not apply to mail that another relay has accepted, because a refusal could no longer reach the
client that submitted it there. They do apply to a message that is sent again.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from msgspec.structs import replace as replace_struct

from mailer.config.receiving import LongLines, RewriteFrom
from mailer.mail.reply import Reply
from mailer.receive.content.resent import resent_block
from mailer.receive.context import Client, ReceiverContext
from mailer.receive.dialogue import Dialogue, Envelope, Refused
from mailer.receive.peers import IMPORT, REPLAY
from mailer.receive.server import converse
from mailer.spool.ids import new_id

_PIECE = 64 * 1024


async def transfer(
    context: ReceiverContext,
    sender: str,
    recipients: Sequence[str],
    content: bytes,
    *,
    once: str,
    operator: str,
) -> Reply:
    """Queue a message for its remaining recipients; return the last reply, positive once it is durable.

    Args:
        context: see `ReceiverContext`; its store has a running committer.
        sender: the envelope sender; empty: the null sender.
        recipients: the recipients that have not received it yet.
        content: the message, with lines that end in CRLF.
        once: the name of its file in `once/`, which keeps it from being queued again.
        operator: the person who runs the import, for the journal and the ledger.
    """
    unlimited = replace(context, rates=None, store=replace(context.store, once=once))
    pieces = (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))
    envelope = Envelope(sender, tuple(recipients), len(content))
    return await _submit(unlimited, f"{IMPORT}:{operator}", envelope, pieces)


@dataclass(frozen=True, slots=True)
class Original:
    """A message of this spool that is to be sent again."""

    id: str
    length: int
    pieces: Iterable[bytes]
    """Its bytes, as they are stored."""
    utf8: bool
    """Whether its header has addresses beyond ASCII."""


async def replay(
    context: ReceiverContext,
    original: Original,
    sender: str,
    recipients: Sequence[str],
    operator: str,
    *,
    once: str = "",
) -> Reply:
    """Queue a copy of a message for other recipients, below a block of Resent- fields; return as `transfer`.

    Its other bytes do not change: `rewriteFrom`, `longLines` and idempotency keys applied when it arrived.

    Args:
        context: as for `transfer`.
        original: the message.
        sender: of the new envelope; empty: the null sender.
        recipients: addresses with a domain.
        operator: the person or the program that ordered the copy, for the journal and the ledger.
        once: the name of a file in `once/`, which keeps a repeated request from queueing a second copy;
            empty: this request always queues one.
    """
    store, settings = context.store, context.settings
    at, hostname = store.clock(), settings.hostname
    top = resent_block(
        sender=sender or f"MAILER-DAEMON@{hostname}",
        to=recipients,
        at=at,
        message_id=f"<{new_id(at)}@{hostname}>",
    )
    size = len(top) + original.length
    content = replace_struct(settings.content, rewrite_from=RewriteFrom.KEEP, obey_keys=False)
    changed = replace(
        context,
        settings=replace(
            settings,
            content=content,
            # The message may be as large as is allowed, and was accepted without the fields that were added.
            max_message_size=max(settings.max_message_size, size),
            # Encoding would change the message, and a signed one would be refused.
            long_lines=LongLines.PASS,
        ),
        store=replace(store, replays=original.id, by=operator, once=once),
    )
    envelope = Envelope(sender, tuple(recipients), size, utf8=original.utf8)
    return await _submit(changed, f"{REPLAY}:{operator}", envelope, chain((top,), original.pieces))


async def _submit(context: ReceiverContext, peer: str, envelope: Envelope, pieces: Iterable[bytes]) -> Reply:
    ours, theirs = socket.socketpair()
    trusting = replace(context, authenticator=None, settings=replace(context.settings, require_auth=False))
    serving = asyncio.create_task(converse(trusting, theirs, Client(peer, local=True)))
    try:
        ours.setblocking(False)
        with await Dialogue.begin(ours, "localhost") as dialogue:
            await dialogue.envelope(envelope)
            return await dialogue.message(_each(pieces), envelope.size)
    except Refused as refused:
        return refused.reply
    finally:
        await serving


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
