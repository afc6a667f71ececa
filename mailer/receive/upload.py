"""Writes one message from the client's bytes to a durable file; the part of a session with an `Incoming`."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from mailer.mail.clock import Clock
from mailer.mail.envelope import Envelope
from mailer.mail.header import HeaderReader, HeaderTooLarge
from mailer.mail.reply import Reply
from mailer.maillog.events import MailLog
from mailer.receive import replies
from mailer.receive.content import long_lines
from mailer.receive.content.fault import ContentFault, Fault
from mailer.receive.content.header_policy import Arrival, ContentPolicy, Origin, added_message_id, top
from mailer.receive.content.headline import Headline, headline
from mailer.receive.content.idempotency import Content
from mailer.receive.content.mime_header import Unencodable
from mailer.receive.content.wishes import Wishes, wishes
from mailer.spool.changes import NotUndone
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming
from mailer.spool.key_file import InUse, KeyFile, Known, name_of
from mailer.spool.layout import Place

_BEGINNING = 8 * 1024
"""Octets of a damaged message that are searched for its Subject and Message-ID."""
_SAME_KEY = "its Idempotency-Key came again"
_SAME_DROP = "this drop was submitted before"
_PIECE = 128 * 1024
"""Octets buffered before a write: it needs fewer hops to a thread, and small messages need none. As many as
`Incoming` writes without another copy."""

Answer = Callable[[Reply | Exception], None]


@dataclass(frozen=True, slots=True)
class Store:
    """The spool, its committer and the mail log that sessions store messages with."""

    spool: Spool
    committer: Committer
    log: MailLog
    clock: Clock
    boot: str = ""
    """The id of this boot. With `uptime` it gives a message's age even if `clock` is wrong."""
    uptime: Clock = lambda: 0.0
    """Seconds since this boot."""
    once: str = ""
    """The file in `once/` that deduplicates a message from `drop/`, an import, or one that is sent again, in
    addition to the file of the message's own idempotency key."""
    replays: str = ""
    """The id of the message that an operator sends again, to other recipients; empty for a new message."""
    by: str = ""
    """The operator's name."""
    encoding: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, 1))
    """Limits encoding of long lines to one message at a time, because it competes for the processor."""


class Upload:
    """One incoming message: its header is edited, and its body is written as it arrives."""

    def __init__(
        self,
        store: Store,
        envelope: Envelope,
        origin: Origin,
        policy: ContentPolicy,
        *,
        scheduled: float = 0.0,
    ) -> None:
        """Create a file in the spool for the message.

        Args:
            store: where the message goes.
            envelope: its sender and recipients.
            origin: the client that it comes from.
            policy: what the operator decides about headers.
            scheduled: when to try it first, in seconds since the epoch; 0: immediately.

        Raises:
            OSError: the file could not be created; do not ask the client for the data.
        """
        if store.spool.lease:
            store.spool.lease.check()
        at = store.clock()
        self._incoming = Incoming.create(
            store.spool, received=at, user=origin.user, peer=origin.peer, envelope=envelope
        )
        self._store = store
        self._scheduled = scheduled
        self.envelope = envelope
        self.origin = origin
        self._arrival = Arrival(origin, policy, self._incoming.id, at)
        self._header: HeaderReader | None = HeaderReader()
        self._gathered = bytearray()
        self._wants_headline = policy.log_headline
        self._headline: Headline | None = None
        """Subject and Message-ID, set once the header is complete."""
        self._beginning = b""
        """The first octets of the message until then, for the log: `take` gets nothing of a damaged piece."""
        self.received = 0
        """Octets received from the client so far, before dots are unstuffed."""
        self._wishes = Wishes()
        self._content: Content | None = None
        """The digest that recognises the same message later; None: it has neither an idempotency key nor an
        entry of its own in `once/`."""
        self._failure: OSError | None = None
        self._fault: ContentFault | None = None
        self._answer: Answer | None = None

    def append(self, data: bytes) -> bool:
        """Buffer the next bytes of the message; drop them if the message has failed or is refused already.

        Args:
            data: the output of a reader (`DataReader`, `ChunkReader`).

        Returns:
            Whether the buffer is full, so that `write` must be awaited before more is taken.
        """
        if self._fault is not None or self._failure is not None:
            return False
        if self._header is not None:
            self._begin(data)
        else:
            self._gathered += data
            if self._content is not None:
                self._content.body(data)
        return len(self._gathered) >= _PIECE

    def _begin(self, data: bytes) -> None:
        """Collect the header until it is complete, then buffer its edited form."""
        assert self._header is not None
        try:
            split = self._header.feed(data)
        except HeaderTooLarge:
            self._fault = Fault.HEADER_TOO_LARGE
        else:
            if split is not None:
                self._edit(*split)

    def _edit(self, head: bytes, rest: bytes) -> None:
        self._header = None
        if self._wants_headline and head:
            self._headline, self._beginning = headline(head), b""
        edited = top(self._arrival, head)
        wanted = wishes(head, self._arrival.at, obey_keys=self._arrival.policy.obey_keys)
        if not isinstance(edited, bytes):
            self._fault = edited
        elif isinstance(wanted, Fault):
            self._fault = wanted
        else:
            self._wishes = wanted
            self._gathered += edited
            self._gathered += rest
            if wanted.key or self._store.once:
                self._content = Content(self.envelope)
                self._content.header(head)
                self._content.body(rest)

    async def write(self) -> None:
        """Write the buffered bytes to the file."""
        piece, self._gathered = self._gathered, bytearray()
        try:
            # In a thread, because write(2) blocks while the disk cannot keep up, and would block the event
            # loop and all other sessions.
            await asyncio.to_thread(self._incoming.write, piece)
        except OSError as error:
            self._fail(error)

    def commit(
        self, fault: Fault | None, *, encode: bool, answer: Answer
    ) -> Coroutine[object, object, None] | None:
        """Make the message durable, or drop it.

        Args:
            fault: the reader's reason to refuse the message, or None.
            encode: the message has a line over 998 octets, and the policy is to encode it.
            answer: called once, possibly before this returns, with the reply for the client. It gets an
                exception instead if the session must end without a reply: NotUndone, when it is unknown
                what is in the spool, or a defect of ours.

        Returns:
            None, or a coroutine that the caller must run because the rest takes time. After an exception,
            from here or from the coroutine, only `discard` may be called.
        """
        if self._header is not None and self._fault is None:
            self._edit(self._header.finish(), b"")
        found = fault or self._fault
        refusal = replies.content_refused(found) if found is not None else None
        if refusal is None and self._failure is None and (encode or self._content is not None):
            return self._commit_slowly(answer, encode=encode)
        self._end(refusal, answer)
        return None

    async def _commit_slowly(self, answer: Answer, *, encode: bool) -> None:
        refusal = await self._encode() if encode else None
        if refusal is None and self._content is not None and self._failure is None:
            refusal = await self._meet(self._content)
        self._end(refusal, answer)

    def _end(self, refusal: Reply | None, answer: Answer) -> None:
        if refusal is None and self._failure is None:
            self._seal()
        if refusal is not None:
            self.discard()
            answer(refusal)
        elif self._failure is not None:
            answer(replies.not_stored(self._failure))
        else:
            self._answer = answer
            self._store.committer.commit_and_call(self._incoming, self._committed, self._tell_accepted)

    def _committed(self, error: Exception | None) -> None:
        assert self._answer is not None
        if error is None:
            # tmp/ need not be synced before the reply: if a crash brings the old name back next to the one
            # in new/, it is recognised (`spool.names`).
            self._store.committer.sync_soon(Place.TMP)
            # The ledger has the accepted line by now. Releasing the lock only here keeps a runner from
            # reporting an outcome before the acceptance.
            self._incoming.release()
            self._answer(replies.queued(self._incoming.id))
        elif isinstance(error, OSError) and not isinstance(error, NotUndone):
            self._report(error)
            self._answer(replies.not_stored(error))
        else:
            self._answer(error)

    def _seal(self) -> None:
        """Write the rest of the file, its length and its accepted line; it is not durable yet."""
        store = self._store
        try:
            if store.spool.lease:
                store.spool.lease.check()
            self._incoming.write(self._gathered)
            self._incoming.seal(
                store.clock(),
                scheduled=self._scheduled,
                expires=self._wishes.expires,
                boot=store.boot,
                uptime=store.uptime(),
                replays=store.replays,
                by=store.by,
            )
        except OSError as error:
            self._fail(error)

    async def _meet(self, content: Content) -> Reply | None:
        """Look up the message's keys and claim them for it; return a reply if it must not be queued again.

        A message from `drop/` that has an idempotency key is recorded under both names, because the key is
        forgotten after `idempotencyWindow`, which may pass before the file in `drop/` is removed.
        """
        incoming, origin, store = self._incoming, self.origin, self._store
        key, digest = self._wishes.key, content.digest()
        own = name_of(origin.user, origin.peer, key) if key else ""
        try:
            for name, why in ((store.once, _SAME_DROP), (own, _SAME_KEY)):
                if name and (first := await self._known(name)).id:
                    return self._repeated(first, digest, why)
            for file in incoming.keys:
                file.begin(incoming.id, digest, at=store.clock())
        except InUse:
            return replies.KEY_IN_USE
        except OSError as error:
            self._fail(error)
        return None

    async def _known(self, name: str) -> Known:
        """Lock the file of a key, and return what it says about an earlier message; raises InUse, OSError."""
        file = KeyFile.lock(self._store.spool, name)
        self._incoming.keys.append(file)
        if file.known.id and not file.known.accepted:
            await asyncio.to_thread(file.settle)
        return file.known

    def _repeated(self, first: Known, digest: str, why: str) -> Reply:
        if first.content != digest:
            return replies.other_mail(first.id)
        self._store.log.message("repeated", id=first.id, to=self._recipients, reason=why)
        return replies.repeated(first.id)

    @property
    def _recipients(self) -> tuple[str, ...]:
        return tuple(recipient.address for recipient in self.envelope.recipients)

    def _tell_accepted(self) -> None:
        try:
            self._log_accepted()
        except Exception as error:  # noqa: BLE001 - it is durable: a defect here must not change its 250
            with suppress(Exception):
                self._store.log.error(
                    "a message was accepted and could not be logged", id=self._incoming.id, error=repr(error)
                )

    def _log_accepted(self) -> None:
        incoming, origin, headline = self._incoming, self.origin, self.headline
        self._store.log.accepted(
            id=incoming.id,
            envelope=self.envelope,
            size=incoming.size,
            user=origin.user,
            peer=origin.peer,
            redirected=origin.redirected,
            scheduled=self._scheduled,
            subject=headline.subject,
            message_id=headline.message_id or self._added_message_id,
            replays=self._store.replays,
            by=self._store.by,
        )

    def came(self, data: bytes) -> None:
        """Count raw bytes of the message, and keep its beginning for the log, before a reader checks them."""
        self.received += len(data)
        if self._wants_headline and self._headline is None and len(self._beginning) < _BEGINNING:
            self._beginning += data[:_BEGINNING]

    @property
    def headline(self) -> Headline:
        """Subject and Message-ID as far as received; empty if the policy is not to log them."""
        if not self._wants_headline:
            return Headline()
        return self._headline or headline(self._beginning.partition(b"\r\n\r\n")[0] + b"\r\n")

    @property
    def _added_message_id(self) -> str:
        return added_message_id(self._arrival) if self._wants_headline else ""

    async def _encode(self) -> Reply | None:
        """Rewrite the message without long lines; return a refusal if it cannot be encoded."""
        incoming, gathered = self._incoming, bytes(self._gathered)
        self._gathered.clear()
        try:
            async with self._store.encoding:
                incoming.write(gathered)
                await asyncio.to_thread(long_lines.encode, incoming)
        except Unencodable as error:
            return replies.unencodable(str(error))
        except OSError as error:
            self._fail(error)
        else:
            self._store.log.notice("lines over 998 octets were encoded (longLines)", id=incoming.id)
        return None

    def _fail(self, error: OSError) -> None:
        self._failure = error
        self._report(error)
        self.discard()

    def discard(self) -> None:
        """Remove the message's file; a second call does nothing."""
        try:
            self._incoming.discard()
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        self._store.log.warning("a message could not be stored", id=self._incoming.id, error=str(error))
