"""Messages in every state, put there by the spool's own moves, for the commands to tell the truth about."""

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailer.mail import clock
from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, Spot, bucket_for
from mailer.spool.locked_message import LockedMessage
from mailer.spool.mark import MARK
from mailer.spool.run.operate import Operator
from mailer.spool.transitions import Move

BODY = b"Subject: hello\r\n\r\nA line.\r\n"
HOP = "mx1.example.net[192.0.2.1]:25"


class Queue:
    """A spool, open beside the commands that work on it."""

    def __init__(self, path: Path) -> None:
        self.spool = Spool.open(path, create=True)
        self._end = weakref.finalize(self, self.spool.close)

    def close(self) -> None:
        """Close the spool. Otherwise that happens when this object goes: few tests have a reason to."""
        self._end()

    def new(
        self, *to: str, sender: str = "app@example.com", body: bytes = BODY, received: float | None = None
    ) -> str:
        """Accept a message, and return its id."""
        envelope = Envelope(sender, tuple(map(Recipient, to or ("bob@example.net",))))
        at = time.time() if received is None else received
        incoming = Incoming.create(self.spool, received=at, user="app", peer="127.0.0.1", envelope=envelope)
        incoming.write(body)
        incoming.seal(at)
        incoming.move()
        incoming.release()
        return incoming.id

    def claim(self, id: str) -> LockedMessage:
        """Take a message into `cur/`, as a runner does; it stays locked until it is released."""
        locked = LockedMessage.lock(self.spool, Spot(Place.NEW, id))
        locked.move(Move.CLAIM)
        locked.leave()
        return locked

    @contextmanager
    def claimed(self, id: str) -> Iterator[None]:
        """Have a living runner at work on a message."""
        with self.claim(id):
            yield

    def abandon(self, id: str) -> None:
        """Have a runner die with a message."""
        self.claim(id).release()

    def defer(self, id: str, reply: str, *to: str, seconds: float = 600.0, refused: str = "") -> float:
        """Have an attempt fail for now; return when the next one is due, in seconds since the epoch.

        Args:
            id: the message.
            reply: what the next hop said.
            to: of whom.
            seconds: until the next attempt.
            refused: the address of another recipient, which it refused for good.
        """
        due = time.time() + seconds
        with self.claim(id) as locked:
            if refused:
                locked.append(_event(Kind.BOUNCED, refused, reply="550 5.1.1 unknown"))
            locked.append(_event(Kind.DEFERRED, *to, reply=reply, next=clock.rfc3339(due)))
            locked.move(Move.DEFER, bucket_for(due))
            locked.leave()
        return due

    def fail(self, id: str, reply: str, *to: str) -> None:
        """Have a recipient refused for good."""
        with self.claim(id) as locked:
            locked.append(_event(Kind.BOUNCED, *to, reply=reply))
            locked.move(Move.FAIL)
            locked.leave()

    def lose_the_reply(self, id: str, *to: str) -> None:
        """Have a runner die after it handed the message over, before the reply came."""
        with self.claim(id) as locked:
            locked.append(_event(Kind.COMMITTING, *to))

    def finish(self, id: str) -> None:
        """Have it sent to everybody; the file is gone."""
        with self.claim(id) as locked:
            locked.move(Move.FINISH)

    def hold(self, id: str, reason: str) -> None:
        Operator(self.spool, "alice").hold(Spot(Place.NEW, id), time.time(), reason)

    def damage(self, id: str) -> None:
        """Flip a byte of the message, and have a runner put it away."""
        path = self.spool.path / "new" / id
        path.write_bytes(path.read_bytes().replace(b"A line.", b"B line."))
        with self.claim(id) as locked:
            locked.move(Move.QUARANTINE)
            locked.leave()

    def files(self) -> dict[str, tuple[bytes, float]]:
        """Everything in the spool but its ledger and mark, with contents and times."""
        return {
            str(path.relative_to(self.spool.path)): (path.read_bytes(), path.stat().st_mtime)
            for path in self.spool.path.rglob("*")
            if path.is_file() and "log" not in path.parts and path.name != MARK
        }


def _event(kind: Kind, *to: str, reply: str = "", next: str = "") -> Event:
    return Event(
        at=clock.rfc3339(time.time()),
        event=kind,
        to=to or ("bob@example.net",),
        hop=HOP,
        reply=reply,
        attempt=1,
        next=next,
    )
