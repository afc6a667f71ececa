"""Messages on their way in over one session: DATA in one piece, or BDAT in chunks (RFC 3030)."""

import re
from collections.abc import Awaitable

import msgspec

from mailer.mail.envelope import Envelope
from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.connection import Connection
from mailer.receive.content import Origin
from mailer.receive.data import ChunkReader, DataReader
from mailer.receive.service import Service
from mailer.receive.upload import Upload
from mailer.spool.changes import NotUndone

_CHUNK = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE)


class Submission(msgspec.Struct, frozen=True):
    """An envelope that is ready for its message."""

    envelope: Envelope
    origin: Origin
    scheduled: float = 0.0
    """When the client wants it tried first, in seconds since the epoch; 0: at once."""


class Chunk(msgspec.Struct, frozen=True):
    """The argument of BDAT."""

    size: int
    last: bool


class Message(msgspec.Struct, frozen=True):
    """One message that is being taken."""

    submission: Submission
    upload: Upload
    counted: float
    """When it was counted against the limits, to be given back if it is not accepted."""


def read_chunk_argument(text: str) -> Chunk | None:
    """Read what follows `BDAT `; None: bad syntax."""
    found = _CHUNK.fullmatch(text)
    return Chunk(int(found[1]), found[2] is not None) if found else None


class Intake:
    """Takes one session's messages, one after the other."""

    def __init__(self, connection: Connection, service: Service) -> None:
        self._connection = connection
        self._service = service
        self._chunked: tuple[Message, ChunkReader] | None = None
        self.taken: Upload | None = None
        """The message of this transaction, as far as it came."""
        self._deadline = 0.0

    @property
    def in_chunks(self) -> bool:
        """The first chunk of a message has come, and not the last."""
        return self._chunked is not None

    def begin(self, submission: Submission) -> Message | Reply:
        """Open a file for a message and count it against the limits; or say why not."""
        service, user, sender = self._service, submission.origin.user, submission.envelope.sender
        if service.rates is not None and (full := service.rates.full(user, sender)):
            return replies.rate_exceeded(full)
        try:
            upload = Upload(
                service.store,
                submission.envelope,
                submission.origin,
                service.settings.content,
                scheduled=submission.scheduled,
            )
        except OSError as error:
            service.store.log.warning(
                "a message could not be stored", peer=submission.origin.peer, error=str(error)
            )
            return replies.not_stored(error)
        self._deadline = self._connection.loop.time() + service.settings.data_timeout
        self.taken = upload
        return Message(submission, upload, service.rates.take(user, sender) if service.rates else 0.0)

    async def data(self, message: Message) -> Reply | None:
        """Read a message up to its dot; return the reply, or None when the connection was dropped."""
        settings = self._service.settings
        reader = DataReader(max_size=settings.max_message_size, long_lines=settings.long_lines)
        upload = message.upload
        try:
            # Trouble with the disk or the header does not end the reading: the client listens only after its
            # dot.
            while not reader.done:
                data = await self._next_chunk()
                upload.came(data)
                gathered = upload.take(reader.feed(data))
                # Not kept while the disk is waited for: of a hundred clients that is 40 MB.
                del data
                if gathered:
                    await upload.write()
        except BaseException:
            upload.discard()
            self._give_back(message)
            raise
        if reader.rest:
            upload.received -= len(reader.rest)
            self._connection.input.unread(reader.rest)
        self._connection.pause_timeout()
        return await self._finish(message, reader)

    async def chunk(self, chunk: Chunk, message: Message | None) -> Reply | None:
        """Read one chunk; return its reply, or None when the connection was dropped.

        Args:
            chunk: as the client announced it, with at most as many octets as a message may have.
            message: whose first chunk this is; None: it has begun already.
        """
        if message is not None:
            settings = self._service.settings
            self._chunked = (
                message,
                ChunkReader(max_size=settings.max_message_size, long_lines=settings.long_lines),
            )
        assert self._chunked is not None
        message, reader = self._chunked
        left = chunk.size
        while left:
            data = await self._next_chunk()
            self._connection.input.unread(data[left:])
            data = data[:left]
            left -= len(data)
            message.upload.came(data)
            gathered = message.upload.take(reader.feed(data))
            del data
            if gathered:
                await message.upload.write()
        self._connection.pause_timeout()
        if chunk.last:
            message.upload.take(reader.feed(b"", last=True))
            # No longer ours to drop, also when the session ends in the middle of the commit.
            self._chunked = None
            return await self._finish(message, reader)
        if reader.fault is not None:
            taken = self.taken
            self.drop()
            self.taken = taken
            return replies.REFUSED_DATA[reader.fault]
        return Reply(250, (f"2.0.0 {chunk.size} octets received",))

    async def skip(self, octets: int) -> None:
        """Read and forget a chunk that belongs to nothing."""
        self._deadline = self._connection.loop.time() + self._service.settings.data_timeout
        while octets:
            data = await self._next_chunk()
            self._connection.input.unread(data[octets:])
            octets -= min(octets, len(data))

    def drop(self) -> None:
        """Forget a message of which chunks have come; without one do nothing."""
        self.taken = None
        if self._chunked is not None:
            message, _ = self._chunked
            self._chunked = None
            message.upload.discard()
            self._give_back(message)

    def _next_chunk(self) -> Awaitable[bytes]:
        connection = self._connection
        left = self._deadline - connection.loop.time()
        connection.set_timeout(max(0.001, min(left, self._service.settings.stall_timeout)))
        return connection.read_chunk()

    async def _finish(self, message: Message, reader: DataReader | ChunkReader) -> Reply | None:
        try:
            reply = await message.upload.finish(reader.fault, encode=reader.must_be_encoded)
        except NotUndone as error:
            self._service.store.log.error(
                "a failed commit could not be undone", peer=self._connection.peer, error=str(error)
            )
            self._connection.abort()
            return None
        except BaseException:
            self._give_back(message)
            raise
        if not reply.positive or isinstance(reply, replies.Repeated):
            self._give_back(message)
        elif self._service.space is not None:
            self._service.space.accepted()
        return reply

    def _give_back(self, message: Message) -> None:
        if self._service.rates is not None:
            submission = message.submission
            self._service.rates.give_back(submission.origin.user, submission.envelope.sender, message.counted)
