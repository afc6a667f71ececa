"""Serves the requests of /v1, which `openapi.json` specifies: post a message, and get its status."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from http import HTTPStatus
from importlib.resources import files

from mailer.mail.reply import Reply
from mailer.receive.context import ReceiverContext
from mailer.receive.dialogue import Dialogue, Envelope, Refused
from mailer.receive.fair_queue import Turns
from mailer.receive.replies import TOO_MANY_CONNECTIONS, read_queued
from mailer.receive.users.auth import Identity
from mailer.receive.users.failures import Failures
from mailer.receive.web import document
from mailer.receive.web.access import check, identify
from mailer.receive.web.compose import compose, envelope_of
from mailer.receive.web.document import Attachment, Mail
from mailer.receive.web.exchange import JSON, Answer, Asked, Pieces, Problem, json
from mailer.spool.ids import is_id

_NAME = "http"
"""The EHLO name given to the session, which `Received` shows with the client's address."""
_MESSAGE = "/v1/messages"
_RAW = "message/rfc822"
_KEY = "idempotency-key"
_PIECE = 64 * 1024
_UNCOUNTED = 256 * 1024
"""Octets of a JSON document that does not count against `_MAX_GATHERED`."""
_MAX_GATHERED = 64 * 2**20
"""Octets of all larger JSON documents in memory together; beyond that, requests are refused temporarily."""
_MAX_OF_ONE = _MAX_GATHERED // 2
"""The same for those of one user, unless it is a single document: its clients may be slow for an hour."""

_REHEARSAL = Mail(
    from_="\u00e4 <a@example.com>",
    subject="\u00e4",
    text="\u00e4",
    html="\u00e4",
    attachments=(Attachment(content=b"\0", filename="\u00e4"), Attachment(content=b"\0", content_id="a")),
    headers={"X-A": "\u00e4"},
)
"""A mail that uses every feature for which `email` imports another module."""

Lookup = Callable[[str, str], Mapping[str, object] | None]
"""Returns the status of a user's message, given the user and the message's id; None: the user has no such
message. It may block."""


def nothing_known(_user: str, _id: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ReceiverParts:
    """The parts of the receiver that requests need."""

    context: Callable[[], ReceiverContext]
    """Returns the current context, which is replaced when the configuration is reloaded."""
    failures: Failures
    connect: Callable[[str, str], socket.socket]
    """Starts a session for a user from a peer, and returns the client's end of it; raises OSError."""
    lookup: Lookup


class Messages:
    """Routes and serves requests."""

    def __init__(self, parts: ReceiverParts) -> None:
        self._parts = parts
        self._gathered = Counter[str]()
        """The octets of each user's large JSON documents in memory."""
        # Composing a large mail takes a thread a second, and slows down the event loop; so one at a time.
        self._composing = Turns(1)
        # One search through the ledger at a time.
        self._looking = Turns(1)
        # `email` imports some modules, and `openapi` reads its file, when first used. Do that now: later this
        # process runs as the spool's owner, who may not be able to read them.
        compose(_REHEARSAL)
        openapi()

    async def answer(self, asked: Asked) -> Answer:
        """Return the response to a request; raises Problem, and Gone if the client has disconnected."""
        check(asked, self._parts.context().settings)
        if asked.path == "/v1/openapi.json":
            _only(asked, "GET")
            return Answer(openapi())
        if asked.path == _MESSAGE:
            _only(asked, "POST")
            return await self._post(asked)
        place, _, name = asked.path.rpartition("/")
        if place == _MESSAGE:
            _only(asked, "GET")
            return await self._get(asked, name)
        raise Problem(HTTPStatus.NOT_FOUND, f"this path does not exist; see {_MESSAGE} and /v1/openapi.json")

    async def _get(self, asked: Asked, name: str) -> Answer:
        user = (await self._identify(asked)).user
        found = None
        if is_id(name):
            async with self._looking.of(user):
                found = await asyncio.to_thread(self._parts.lookup, user, name)
        if found is None:
            # The response does not reveal whether another user has a message with this id.
            words = "you have submitted no message with this id, or it is older than the log (logRetention)"
            raise Problem(HTTPStatus.NOT_FOUND, words)
        return json(found)

    async def _post(self, asked: Asked) -> Answer:
        user = (await self._identify(asked)).user
        kind, _, parameters = asked.header("content-type").partition(";")
        kind, parameters = kind.strip().lower(), parameters.strip().lower().replace('"', "")
        if kind not in {_RAW, JSON} or parameters not in {"", "charset=utf-8"}:
            words = f"Content-Type must be {_RAW} or {JSON}, with no parameter but charset=utf-8"
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, words)
        if asked.header("content-encoding").lower() not in {"", "identity"}:
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")
        key = _key_line(asked) if self._parts.context().settings.content.obey_keys else b""
        if kind == _RAW:
            return await self._submit(asked, user, _enveloped(asked), _with(key, asked), key)
        if asked.query:
            # Else the recipients named there would get nothing, and the answer would be 202.
            raise Problem(
                HTTPStatus.BAD_REQUEST, f"the query is for {_RAW} alone: name all addresses in the JSON"
            )
        with self._claim(user) as claim:
            content, envelope = await self._made(await self._gather(asked, claim), user)
            return await self._submit(asked, user, envelope, _cut(key + content), key)

    async def _made(self, written: bytes, user: str) -> tuple[bytes, Envelope]:
        """Return the message and the envelope that a JSON document describes."""
        mail = document.read(written)
        # Free the memory: composing makes several copies of about this size.
        del written
        envelope = envelope_of(mail)
        if mail.raw is not None:
            return mail.raw, replace(envelope, size=len(mail.raw))
        async with self._composing.of(user):
            content = await asyncio.to_thread(compose, mail)
        return content, replace(envelope, size=len(content))

    async def _submit(
        self, asked: Asked, user: str, envelope: Envelope, pieces: Pieces, key: bytes
    ) -> Answer:
        """Submit a message through a session.

        Args:
            asked: the request.
            user: the user that submits it.
            envelope: its envelope, with the size without `key`.
            pieces: the message's octets, beginning with `key`.
            key: the Idempotency-Key field, or nothing.
        """
        try:
            connection = self._parts.connect(user, asked.peer)
        except OSError as error:
            self._parts.context().store.log.warning("a session could not begin", error=str(error))
            raise Problem.of(TOO_MANY_CONNECTIONS) from None
        try:
            with await Dialogue.begin(connection, _NAME) as dialogue:
                await dialogue.envelope(envelope)
                await asked.go_ahead()
                size = None if envelope.size is None else envelope.size + len(key)
                reply = await dialogue.message(pieces, size)
        except Refused as refused:
            raise self._problem(refused, user, envelope.sender) from None
        return _accepted(reply)

    def _problem(self, refused: Refused, user: str, sender: str) -> Problem:
        rates = self._parts.context().rates
        full = rates.full(user, sender) if rates is not None and refused.reply.enhanced == "4.7.1" else None
        if full is not None:
            return Problem.of(refused.reply, refused=refused.recipients, retry_after=full.seconds)
        return Problem.of(refused.reply, refused=refused.recipients)

    async def _identify(self, asked: Asked) -> Identity:
        identity = await identify(asked, self._parts.context(), self._parts.failures)
        asked.on_known(identity.user)
        return identity

    async def _gather(self, asked: Asked, claim: Callable[[int], None]) -> bytes:
        """Read a JSON document; raises Problem if it is too large, or too much memory is in use."""
        # Base64 takes four thirds of the octets it encodes, in the message too; the rest is for JSON escapes.
        most = self._parts.context().settings.max_message_size * 3 // 2 + _UNCOUNTED
        if (asked.length or 0) > most:
            raise _too_large(most)
        await asked.go_ahead()
        gathered = bytearray()
        async for piece in asked.pieces():
            gathered += piece
            if len(gathered) > most:
                raise _too_large(most)
            claim(len(gathered))
        return bytes(gathered)

    @contextmanager
    def _claim(self, user: str) -> Iterator[Callable[[int], None]]:
        """Count one document's memory against the limits, until its message is submitted."""
        held = 0

        def claim(octets: int) -> None:
            nonlocal held
            if octets > _UNCOUNTED:
                self._gathered[user] += octets - held
                held = octets
                theirs = self._gathered[user]
                if self._gathered.total() > _MAX_GATHERED or theirs > max(_MAX_OF_ONE, held):
                    raise Problem.of(_NO_MEMORY)

        try:
            yield claim
        finally:
            self._gathered[user] -= held
            if not self._gathered[user]:
                del self._gathered[user]


_NO_MEMORY = Reply(452, ("4.3.1 Too many large JSON documents at once; try again, or post message/rfc822",))


@cache
def openapi() -> bytes:
    """Return the OpenAPI description of this interface."""
    return files("mailer.receive.web").joinpath("openapi.json").read_bytes()


def _only(asked: Asked, method: str) -> None:
    if asked.method != method:
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"only {method} is allowed here", ("Allow", method))


def _accepted(reply: Reply) -> Answer:
    message_id, repeated = read_queued(reply)
    location = ("Location", f"{_MESSAGE}/{message_id}")
    return json({"id": message_id, "repeated": repeated}, HTTPStatus.ACCEPTED, location)


def _enveloped(asked: Asked) -> Envelope:
    """Return the envelope of a message/rfc822 request, from its query: `?from=a@b&to=c@d&to=e@f`."""
    senders = [value for name, value in asked.query if name == "from"]
    recipients = tuple(value for name, value in asked.query if name == "to")
    unknown = [name for name, _ in asked.query if name not in {"from", "to"}]
    if unknown or len(senders) != 1 or not recipients:
        words = "the query is the envelope: from=ADDRESS once, to=ADDRESS once for each recipient"
        raise Problem(HTTPStatus.BAD_REQUEST, words)
    return Envelope(senders[0], recipients, asked.length)


def _key_line(asked: Asked) -> bytes:
    """Return the request's idempotency key as a header field for the session."""
    values = asked.headers.get(_KEY, ())
    # The session checks that there is only one, and that it is valid.
    return b"".join(b"Idempotency-Key: %s\r\n" % value.encode("utf-8", "surrogateescape") for value in values)


async def _with(key: bytes, asked: Asked) -> Pieces:
    if key:
        yield key
    async for piece in asked.pieces():
        yield piece


async def _cut(content: bytes) -> Pieces:
    for at in range(0, len(content), _PIECE):
        yield content[at : at + _PIECE]


def _too_large(most: int) -> Problem:
    words = f"a JSON document of at most {most} octets is taken (maxMessageSize); post message/rfc822 instead"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words, close=True)
