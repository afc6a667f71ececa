"""DATA, from the client's bytes to a durable file: the part of a session that owns an `Incoming`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mailer.mail.clock import Clock
from mailer.mail.envelope import Envelope
from mailer.mail.reply import Reply
from mailer.maillog.events import MailLog
from mailer.receive import replies
from mailer.receive.content import Origin, received_field
from mailer.receive.data import DataReader
from mailer.spool.changes import NotUndone
from mailer.spool.committer import Committer
from mailer.spool.incoming import Incoming
from mailer.spool.layout import Spool

_PIECE = 64 * 1024
"""Octets gathered before they are written: fewer hops to a thread, and small messages need none."""


@dataclass(frozen=True, slots=True)
class Store:
    """Where messages go, and who is told."""

    spool: Spool
    committer: Committer
    log: MailLog
    clock: Clock


class Upload:
    """One message on its way in."""

    def __init__(self, store: Store, envelope: Envelope, origin: Origin, reader: DataReader) -> None:
        """Open a file for the message and begin it with our Received field.

        Raises:
            OSError: there is no file; do not ask for the data.
        """
        at = store.clock()
        self._incoming = Incoming.create(
            store.spool, received=at, user=origin.user, peer=origin.peer, envelope=envelope
        )
        self._store = store
        self._envelope = envelope
        self._origin = origin
        self._reader = reader
        self._gathered = bytearray(received_field(origin, self._incoming.id, at))
        self._failure: OSError | None = None

    async def receive(self, read_chunk: Callable[[], Awaitable[bytes]]) -> bytes:
        """Read to the end of the message, keeping it as long as it can be kept.

        Trouble with the disk does not end the reading: the client listens only after its dot.

        Returns:
            What the client sent after the end.

        Raises:
            ConnectionError: the client left before the dot; nothing is kept.
        """
        try:
            while not self._reader.done:
                self._gathered += self._reader.feed(await read_chunk())
                if len(self._gathered) >= _PIECE:
                    piece, self._gathered = bytes(self._gathered), bytearray()
                    await self._write(piece)
        except BaseException:
            self._discard()
            raise
        return self._reader.rest

    async def _write(self, piece: bytes) -> None:
        if self._failure is not None:
            return
        try:
            # In a thread: a disk that is written faster than it can makes write(2) wait, and with it
            # everybody who shares the loop.
            await asyncio.to_thread(self._incoming.write, piece)
        except OSError as error:
            self._fail(error)

    async def finish(self) -> Reply:
        """Make the message durable, or drop it; return the reply to the dot.

        Raises:
            NotUndone: nobody can say what is in the spool; drop the connection without a reply.
        """
        if self._reader.fault is not None:
            self._discard()
            return replies.REFUSED_DATA[self._reader.fault]
        if self._failure is None:
            try:
                self._incoming.write(bytes(self._gathered))
                self._incoming.seal(self._store.clock())
            except OSError as error:
                self._fail(error)
        if self._failure is None:
            await self._commit()
        if self._failure is not None:
            return replies.not_stored(self._failure)
        # The ledger before the lock: no runner can report an outcome before the acceptance.
        incoming, origin = self._incoming, self._origin
        self._store.log.accepted(
            id=incoming.id, envelope=self._envelope, size=incoming.size, user=origin.user, peer=origin.peer
        )
        incoming.release()
        return replies.queued(incoming.id)

    async def _commit(self) -> None:
        try:
            # Shielded: what was handed in is done, even if this session is cancelled meanwhile.
            await asyncio.shield(asyncio.wrap_future(self._store.committer.commit(self._incoming)))
        except NotUndone:
            raise
        except OSError as error:
            self._failure = error
            self._report(error)

    def _fail(self, error: OSError) -> None:
        self._failure = error
        self._report(error)
        self._discard()

    def _discard(self) -> None:
        try:
            self._incoming.discard()
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        self._store.log.warning("a message could not be stored", id=self._incoming.id, error=str(error))
