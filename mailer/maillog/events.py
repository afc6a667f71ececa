"""One method per mail event: the ledger gets all, standard error what the operator should see."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from operator import attrgetter
from typing import NamedTuple

import msgspec

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.envelope import Envelope
from mailer.mail.outcome import Outcome, Status
from mailer.mail.reply import enhanced_status
from mailer.maillog import outlet
from mailer.maillog.ledger import Ledger, Line
from mailer.maillog.retention import remove_old_days


class Level(IntEnum):
    """syslog(3)'s severities."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


Fields = Mapping[str, object]
Sink = Callable[[Level, str, Fields], None]
"""Called with the severity, the message (empty for an event, whose fields say all), and the fields."""


class Times(NamedTuple):
    """What an attempt knows of a message's time, in seconds since the epoch."""

    received: float
    """The client began to send it."""
    queued: float
    """It was accepted, or the operator requeued it."""
    begun: float
    """This attempt began."""
    handed_over: float | None = None
    """Its final dot was about to be sent; None: it did not come to that."""

    def parts(self, now: float) -> tuple[float, float, float, float]:
        """Divide the time from receipt until now as Postfix divides its `delays`.

        Before the queue, in the queue, setting up (looking up, connecting, logging in, the envelope), and
        transmitting up to the final reply.
        """
        over = now if self.handed_over is None else self.handed_over
        return (
            _between(self.received, self.queued),
            _between(self.queued, self.begun),
            _between(self.begun, over),
            _between(over, now),
        )


def _between(earlier: float, later: float) -> float:
    """To the millisecond; a clock that was put back makes no time negative."""
    return round(later - earlier, 3) if later > earlier else 0.0


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Recipients of one message that share one outcome of one attempt."""

    id: str
    sender: str
    received: float
    attempt: int
    to: tuple[str, ...]
    outcome: Outcome
    next: str = ""
    dsn: str = ""
    times: Times | None = None
    """None: nobody knows any more."""
    message: str = ""
    """What the whole message came to with it: `delivered` or `failed`; empty while a recipient is open."""
    again: bool = False
    """The line may be a repetition; see `ledger.Line`."""

    @property
    def status(self) -> Status:
        return self.outcome.status


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A submission that is refused, as far as it came."""

    peer: str
    user: str = ""
    sender: str | None = None
    """None: there is none yet."""
    to: tuple[str, ...] = ()
    """The recipient that is refused, or all of the message that is."""
    size: int | None = None
    """Octets that came, or that the client announced."""
    subject: str = ""
    message_id: str = ""


_address = attrgetter("address")
_EXPECTED = {Status.SENT, Status.DEFERRED}


class MailLog:
    """Where every program says what happened."""

    def __init__(
        self,
        clock: Clock,
        sink: Sink,
        ledger: Ledger | None = None,
        *,
        keep: float = math.inf,
        shown: Level = Level.INFO,
    ) -> None:
        """Prepare.

        Args:
            clock: what time it is.
            sink: says what the operator should see.
            ledger: gets every event; None: nobody keeps them.
            keep: seconds that the ledger keeps a day after its end.
            shown: the least grave that the sink shows: it is not asked about other events.
        """
        self._shown = shown
        self._clock = clock
        self._sink = sink
        self._ledger = ledger
        self._keep = keep

    def accepted(  # noqa: PLR0913 - one for each field
        self,
        *,
        id: str,
        envelope: Envelope,
        size: int,
        user: str,
        peer: str,
        redirected: tuple[str, ...] = (),
        scheduled: float = 0.0,
        subject: str = "",
        message_id: str = "",
    ) -> None:
        """Log that a message is durable; the client gets its 250 after this.

        Args:
            id: the message.
            envelope: its, as it will be sent.
            size: octets of the message.
            user: who logged in.
            peer: from where.
            redirected: recipients that the client gave and that are not in the envelope.
            scheduled: when it is to be tried first, in seconds since the epoch; 0: at once.
            subject: decoded; empty: it has none, or it is not to be kept.
            message_id: likewise.
        """
        to = tuple(map(_address, envelope.recipients))
        self._event(
            Level.INFO,
            "accepted",
            id=id,
            sender=envelope.sender,
            to=to,
            redirected=redirected,
            next=clock.rfc3339(scheduled) if scheduled else "",
            size=size,
            user=user,
            peer=peer,
            subject=subject,
            message_id=message_id,
        )

    def notified(self, *, id: str, to: tuple[str, ...], notice: str, addressee: str, size: int) -> None:
        """Tell that a notification about some recipients of a message is on its way.

        Args:
            id: the message.
            to: its recipients that the notification is about.
            notice: the notification's own id.
            addressee: the address that the notification goes to.
            size: of the notification.
        """
        self._event(Level.INFO, "notified", id=id, to=to, notice=notice)
        self._event(Level.INFO, "accepted", id=notice, sender="", to=(addressee,), size=size, about=id)

    def rejected(self, refused: "Refused", reply: str) -> None:
        """Tell that a transaction, or one recipient of it, was refused."""
        self._event(Level.NOTICE, "rejected", **msgspec.structs.asdict(refused), reply=reply)

    def limited(self, refused: "Refused", reply: str) -> None:
        """Tell that a message was refused for now, because of a limit on how many there may be."""
        self._event(Level.NOTICE, "limited", **msgspec.structs.asdict(refused), reply=reply)

    def login_failed(self, *, peer: str, user: str, more: int = 0) -> None:
        """Args: more: failed logins from there that get no line of their own; `user` is the last one's."""
        reason = f"and {more} more from there in a minute" if more else ""
        self._event(Level.WARNING, "login-failed", user=user, peer=peer, reason=reason, more=more)

    def delivery(self, line: Delivery) -> None:
        """Tell what one attempt did for recipients that share an outcome."""
        now, status = self._clock(), str(line.status)
        self._event(
            Level.INFO if status in _EXPECTED else Level.WARNING,
            status,
            id=line.id,
            sender=line.sender,
            to=line.to,
            relay=line.outcome.hop,
            delay=_between(line.received, now),
            delays=line.times.parts(now) if line.times else (),
            dsn=line.dsn,
            status=status,
            reply=line.outcome.reply,
            next=line.next,
            attempt=line.attempt,
            tls=line.outcome.tls,
            message=line.message,
            again=line.again,
        )

    def attempt(self, *, id: str, to: tuple[str, ...], relay: str, reply: str, attempt: int) -> None:
        """Tell that one next hop was tried and decided nothing: in the same attempt another one is tried."""
        dsn = enhanced_status(reply)
        self._event(Level.INFO, "attempt", id=id, to=to, relay=relay, dsn=dsn, reply=reply, attempt=attempt)

    def message(
        self,
        event: str,
        *,
        id: str,
        to: tuple[str, ...] = (),
        reason: str = "",
        by: str = "",
        level: Level = Level.NOTICE,
    ) -> None:
        """Tell what else became of a message: held, released, requeued, recovered, quarantined, removed.

        `to` is whom it is for, so that a search for one of them finds this, too.
        """
        self._event(level, event, id=id, to=to, reason=reason, by=by)

    def provider(self, name: str, state: str, reason: str = "", *, level: Level = Level.NOTICE) -> None:
        """Tell that a provider's health changed, as its breaker sees it: what it is called, and is now."""
        self._event(level, "provider", name=name, state=state, reason=reason)

    def forget_old_days(self) -> int:
        """Delete the days of the ledger that have been kept long enough; return how many.

        Trouble with the directory does not concern the mail, and was logged when it was written to.
        """
        removed: list[str] = []
        if self._ledger and self._keep < math.inf:
            with contextlib.suppress(OSError):
                removed = remove_old_days(self._ledger.directory, self._clock(), self._keep)
        for day in removed:
            self.notice("removed a day of the ledger", day=day)
        return len(removed)

    def notice(self, text: str, **fields: object) -> None:
        """Say something of the program itself; not in the ledger."""
        self._say(Level.NOTICE, text, fields)

    def warning(self, text: str, **fields: object) -> None:
        self._say(Level.WARNING, text, fields)

    def error(self, text: str, **fields: object) -> None:
        self._say(Level.ERROR, text, fields)

    def _say(self, level: Level, text: str, fields: dict[str, object]) -> None:
        self._sink(level, text, fields)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what is said in a block at its end, at once: many lines cost little more than one."""
        with self._ledger.together() if self._ledger else contextlib.nullcontext(), outlet.together():
            yield

    def _event(self, level: Level, event: str, **fields: object) -> None:
        at = clock.rfc3339(self._clock())
        line = Line(at=at, event=event, **fields)  # type: ignore[arg-type]  # checked at the callers above
        if self._ledger:
            self._ledger.append(line)
        if level > self._shown:
            return
        told = {"id": fields.pop("id", ""), "event": event}
        if (sender := fields.pop("sender", None)) is not None:
            told["from"] = sender or "<>"
        # Who may read the log of a service is often not meant to read mail.
        fields.pop("subject", None)
        fields.pop("message_id", None)
        self._sink(level, "", told | fields)
