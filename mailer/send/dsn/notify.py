"""Queue the notifications that a message owes to its sender, exactly once.

`spool.run.notice` defines the order of the steps, `owed` says what is due, and `report` writes it.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailer.mail import clock
from mailer.mail.envelope import Envelope, Recipient
from mailer.maillog.events import MailLog
from mailer.send.dsn.owed import Action, Destination, Told, may_owe, owed
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.fold import advance
from mailer.spool.incoming import Incoming
from mailer.spool.journal import Event, Kind
from mailer.spool.message_state import State
from mailer.spool.run.claim import Claim
from mailer.spool.run.notice import Sent, Written

if TYPE_CHECKING:
    from mailer.send.dsn.subject import Subject


@dataclass(frozen=True, slots=True)
class NotificationSettings:
    """The configuration of notifications."""

    destination: Destination
    hostname: str
    delay_warning: float
    """The age in seconds from which a message is reported as late; 0 to report no delays."""
    max_age: float
    """Seconds from a message's acceptance until it is given up."""
    trusts_clock: Callable[[], bool] = lambda: True
    """Tells whether the clock can be trusted now to find that a message is late."""


class Notifier:
    """Writes the notifications that a claimed message owes."""

    def __init__(
        self, spool: Spool, committer: Committer, settings: NotificationSettings, log: MailLog
    ) -> None:
        self._spool = spool
        self._committer = committer
        self._settings = settings
        self._log = log

    async def notify(self, claim: Claim, state: State, now: float) -> State:
        """Queue one notification of all that is owed, and record it in the message's journal.

        After an internal error, which is logged, no notification is made, and the journal records none.

        Args:
            claim: the message, before it leaves `cur/`.
            state: the fold of its journal.
            now: seconds since the epoch.

        Returns:
            The state, including what was recorded.

        Raises:
            OSError: some step failed. The message must stay in `cur/`, where the next claim finishes the
                steps or begins again. There are never two notifications that can be sent.
        """
        if not may_owe(state):
            return state
        to = self._settings.destination(claim.entry.envelope.sender)
        delay_warning = self._settings.delay_warning if self._settings.trusts_clock() else 0.0
        told = owed(state, now, delay_warning) if to else ()
        if not told:
            return state
        try:
            notification = self._write(claim, state, told, to, now)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours must not keep the message going round and round
            # Only the type is logged, because the message may contain private data.
            self._log.error("a notification could not be written", id=claim.id, error=type(error).__name__)
            return state
        size = notification.size
        addresses = tuple(each.standing.address for each in told)
        event = Event(at=clock.rfc3339(now), event=Kind.NOTIFIED, to=addresses, notice=notification.id)
        try:
            await asyncio.wrap_future(self._committer.commit(Written(notification)))
            # From here on nothing is undone: the line may be in the file even if the write reports an error.
            claim.locked.append(event)
            self._log.notified(id=claim.id, to=addresses, notice=notification.id, addressee=to, size=size)
            await asyncio.wrap_future(self._committer.commit(Sent(claim.locked, notification)))
        finally:
            notification.release()
        return advance(state, [event])

    def _write(self, claim: Claim, state: State, told: tuple[Told, ...], to: str, now: float) -> Incoming:
        # Imported here: most runs send no notification, and `email.utils` takes long to import.
        from mailer.send.dsn.report import compose  # noqa: PLC0415
        from mailer.send.dsn.subject import Letterhead  # noqa: PLC0415

        about = self._subject(claim, state, told)
        utf8 = not to.isascii()
        notification = Incoming.create(
            self._spool,
            received=now,
            user="",
            peer="",
            # Whether there is 8-bit text is known only after writing; 8BITMIME allows both.
            envelope=Envelope("", (Recipient(to),), body="8BITMIME", smtputf8=utf8),
        )
        try:
            ours = Letterhead(notification.id, self._settings.hostname, to, now)
            notification.write(compose(about, told, ours))
            notification.seal(now, about=claim.id)
        except BaseException:
            notification.discard()
            raise
        return notification

    def _subject(self, claim: Claim, state: State, told: tuple[Told, ...]) -> "Subject":
        from mailer.send.dsn.report import LARGEST_COPY, header_of  # noqa: PLC0415 - as above
        from mailer.send.dsn.subject import Subject  # noqa: PLC0415 - as above

        entry = claim.entry
        failed = any(each.action is Action.FAILED for each in told)
        # RFC 3461 4.3: RET applies to failures only; a notification without a failure has just the header.
        whole = failed and entry.envelope.ret != "HDRS" and entry.length <= LARGEST_COPY
        copy = claim.locked.read_message(entry, 0, LARGEST_COPY)
        return Subject(
            id=claim.id,
            envelope=entry.envelope,
            received=entry.block.received,
            given_up=min(state.since + self._settings.max_age, state.expires or math.inf),
            copy=copy if whole else header_of(copy),
            whole=whole,
            replays=state.replays,
            by=state.accepted.by if state.accepted else "",
        )
