"""Mail put into a spool, where to send it, and what became of it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spools import walk as spool_walk
from testbed.ports import LOOPBACK

from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.changes import make_durable
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming
from outbound.hostile import Server

SENDER = "app@example.com"
TO = "bob@example.net"
MESSAGE = b"From: <app@example.com>\r\nSubject: hello\r\n\r\nhello\r\n"
HELLO = Envelope(SENDER, (Recipient(TO),))
REFUSED = "Connection refused"
PLACES = (*spool_walk.QUEUE, "sent")


def queue(
    directory: Path,
    recipients: Sequence[str] = (TO,),
    message: bytes = MESSAGE,
    *,
    sender: str = SENDER,
    user: str = "",
    received: float | None = None,
) -> str:
    """Put one message into the spool as the receiver does, and return its id."""
    envelope = Envelope(sender, tuple(map(Recipient, recipients)))
    with arriving(directory, envelope, message, user=user, received=received) as message_id:
        return message_id


@contextmanager
def arriving(
    directory: Path,
    envelope: Envelope = HELLO,
    message: bytes = MESSAGE,
    *,
    user: str = "",
    received: float | None = None,
) -> Iterator[str]:
    """Run the block while the receiver still holds a message that already stands in `new/`."""
    now = time.time() if received is None else received
    with Spool.open(directory, create=True) as spool:
        incoming = Incoming.create(spool, received=now, user=user, peer="127.0.0.1", envelope=envelope)
        incoming.write(message)
        incoming.seal(now)
        make_durable(spool, incoming)
        yield incoming.id
        incoming.release()


def forward_to(*hops: Server | int, **settings: Any) -> dict[str, Any]:
    """The settings that send everything through these servers (or ports), in this order."""
    ports = [hop if isinstance(hop, int) else hop.port for hop in hops]
    providers = [{"host": LOOPBACK, "port": port} for port in ports]
    return {"forwardSMTP": True, "forwardProviders": providers, "batchDelay": 0, **settings}


def at(hop: Server | int) -> str:
    """A next hop as the journal names it."""
    return f"{LOOPBACK}:{hop if isinstance(hop, int) else hop.port}"


def found(spool: Path, message_id: str) -> spool_walk.Found | None:
    """The message's file, wherever it is; None once it is gone."""
    return spool_walk.walk(spool, PLACES).get(message_id)


def outcomes(message: spool_walk.Found) -> list[tuple[object, tuple[str, ...]]]:
    """What the journal says happened to whom, in order, without what came before the first attempt."""
    return [(event["event"], tuple(event.get("to", ()))) for event in message.events[1:]]


USER, PASSWORD = "relay@example.com", "open sesame"


LOGIN = {"username": USER, "password": PASSWORD}
