"""Reads the messages of one session: by DATA in one piece, or by BDAT in chunks (RFC 3030)."""

import re
from collections.abc import Callable
from math import inf

import msgspec

from mailer.mail.envelope import Envelope
from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.content.data import ChunkReader, DataReader
from mailer.receive.content.header_policy import Origin
from mailer.receive.context import ReceiverContext
from mailer.receive.smtp.connection import Connection
from mailer.receive.upload import Upload
from mailer.spool.changes import NotUndone

_CHUNK = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE)


class Chunk(msgspec.Struct, frozen=True):
    """The argument of BDAT."""

    size: int
    last: bool


def read_chunk_argument(text: str) -> Chunk | None:
    """Parse the text after `BDAT `; return None for bad syntax."""
    found = _CHUNK.fullmatch(text)
    return Chunk(int(found[1]), found[2] is not None) if found else None


_NO_CHUNK = Chunk(0, last=False)


class Intake:
    """Receives the messages of one session, one after the other."""

    def __init__(
        self, connection: Connection, context: ReceiverContext, conclude: Callable[[Reply], None]
    ) -> None:
        """Prepare for the first message.

        Args:
            connection: the connection to read from.
            context: holds the store, the limits and the settings.
            conclude: called with the reply to a message, or to the chunk that ends it.
        """
        self._connection = connection
        self._context = context
        self._conclude = conclude
        self._open = False
        """Whether a message is in progress: its file is neither committed nor discarded."""
        self._reader: DataReader | ChunkReader | None = None
        self._counted = 0.0
        """When the message was counted against the rate limits; needed to undo that if it is not accepted."""
        self.taken: Upload | None = None
        """The message of this transaction, as far as it was received."""
        self._chunk = _NO_CHUNK
        self._left = 0
        """Octets of the chunk that are still to come."""
        self._deadline = 0.0
        self._since = 0.0
        self._answer: Reply | Exception | None = None

    def begin(self, envelope: Envelope, origin: Origin, *, scheduled: float = 0.0) -> Reply | None:
        """Open a file for a message and count it against the rate limits; or return the refusal.

        Args:
            envelope: the complete envelope.
            origin: the client that the message comes from.
            scheduled: when it wants the first delivery attempt, in seconds since the epoch; 0: immediately.
        """
        context, rates = self._context, self._context.rates
        if rates is not None and (full := rates.full(origin.user, envelope.sender)):
            return replies.rate_exceeded(full)
        try:
            self.taken = Upload(
                context.store, envelope, origin, context.settings.content, scheduled=scheduled
            )
        except OSError as error:
            context.store.log.warning("a message could not be stored", peer=origin.peer, error=str(error))
            return replies.not_stored(error)
        self._open = True
        if rates is not None:
            self._counted = rates.charge(origin.user, envelope.sender)
        self._since = self._connection.loop.time()
        self._deadline = self._since + context.settings.data_timeout
        return None

    @property
    def since(self) -> float:
        """When the message in progress began to arrive, in the loop's time; inf if there is none."""
        return self._since if self._open else inf

    def read_data(self) -> None:
        """Read the message in progress up to its final dot."""
        settings = self._context.settings
        self._reader = DataReader(max_size=settings.max_message_size, long_lines=settings.long_lines)
        self._await_more()
        self._connection.read_by(self._receive_data)

    def _receive_data(self) -> bool:
        unread, reader = self._connection.input, self._reader
        assert isinstance(reader, DataReader)
        if not reader.done:
            if not unread.buffer:
                return False
            # After an error of the disk or a refused header, reading goes on: a client listens for a reply
            # only after its dot.
            if self._append(unread.read()):
                return True
        if reader.done:
            self._commit(reader.rest)
        else:
            self._await_more()
        return True

    def read_chunk(self, chunk: Chunk) -> None:
        """Read a chunk of the message in progress.

        Args:
            chunk: as the client announced it; not larger than the limit for a message.
        """
        if self._reader is None:
            settings = self._context.settings
            self._reader = ChunkReader(max_size=settings.max_message_size, long_lines=settings.long_lines)
        self._chunk, self._left = chunk, chunk.size
        self._await_more()
        self._connection.read_by(self._receive_chunk)

    def _receive_chunk(self) -> bool:
        reader, upload = self._reader, self.taken
        assert isinstance(reader, ChunkReader)
        assert upload is not None
        if self._left:
            if not self._connection.input.buffer:
                return False
            data = self._connection.input.read(self._left)
            self._left -= len(data)
            if not self._append(data):
                self._await_more()
        elif self._chunk.last:
            upload.append(reader.feed(b"", last=True))
            self._commit()
        else:
            self._connection.read_by(None)
            if reader.fault is not None:
                self._conclude(replies.content_refused(reader.fault))
            else:
                self._connection.send_reply(Reply(250, (f"2.0.0 {self._chunk.size} octets received",)))
        return True

    def skip(self, octets: int, refusal: Reply) -> None:
        """Read and discard a chunk that belongs to no message, and conclude with `refusal`."""
        self._left, self._answer = octets, refusal
        self._deadline = self._connection.loop.time() + self._context.settings.data_timeout
        self._await_more()
        self._connection.read_by(self._discard_input)

    def _discard_input(self) -> bool:
        if not self._left:
            return self._reply()
        if not self._connection.input.buffer:
            return False
        self._left -= len(self._connection.input.read(self._left))
        self._await_more()
        return True

    def drop(self) -> None:
        """Discard a message that is not concluded; without one do nothing."""
        upload, self.taken, self._reader = self.taken, None, None
        if upload is not None and self._open:
            self._open = False
            upload.discard()
            self._give_back(upload)

    def _append(self, data: bytes) -> bool:
        """Pass a piece to the reader and the upload; return whether the buffer must be written first."""
        reader, upload = self._reader, self.taken
        assert reader is not None
        assert upload is not None
        upload.came(data)
        gathered = upload.append(reader.feed(data))
        if gathered:
            self._connection.timer.suspend()
            self._connection.wait_for(self._write(upload))
        return gathered

    async def _write(self, upload: Upload) -> None:
        """Write the buffered octets; the time that takes is added to the client's deadline."""
        clock = self._connection.loop.time
        begun = clock()
        await upload.write()
        self._deadline += clock() - begun
        self._await_more()

    def _await_more(self) -> None:
        connection, most = self._connection, self._context.settings.stall_timeout
        left = self._deadline - connection.loop.time()
        connection.timer.arm(most if left > most else max(0.001, left))

    def _commit(self, rest: bytes = b"") -> None:
        """Have the message made durable, and put back what the client sent after its end."""
        reader, upload = self._reader, self.taken
        assert reader is not None
        assert upload is not None
        if rest:
            upload.received -= len(rest)
            self._connection.input.unread(rest)
        self._reader = None
        self._connection.timer.suspend()
        self._connection.read_by(self._reply)
        self._connection.hold()
        slow = upload.commit(reader.fault, encode=reader.must_be_encoded, answer=self._answered)
        if slow is not None:
            self._connection.wait_for(slow)

    def _answered(self, answer: Reply | Exception) -> None:
        self._answer = answer
        self._connection.release()

    def _reply(self) -> bool:
        answer, self._answer = self._answer, None
        if isinstance(answer, NotUndone):
            self._open = False
            self._context.store.log.error(
                "a failed commit could not be undone", peer=self._connection.peer, error=str(answer)
            )
            self._connection.abort()
            return True
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        if self._open and self.taken is not None:
            self._open = False
            if answer.code >= replies.REFUSAL or isinstance(answer, replies.Repeated):
                self._give_back(self.taken)
            elif self._context.space is not None:
                self._context.space.accepted()
        self._connection.read_by(None)
        self._conclude(answer)
        return True

    def _give_back(self, upload: Upload) -> None:
        """Undo that a message was counted against the rate limits."""
        if self._context.rates is not None:
            self._context.rates.refund(upload.origin.user, upload.envelope.sender, self._counted)
