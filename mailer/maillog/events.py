"""The mail log, one method per event: the ledger gets all, standard error what operators should see."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from operator import attrgetter

import msgspec

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.envelope import Envelope
from mailer.mail.outcome import Outcome, Status
from mailer.mail.reply import enhanced_status
from mailer.maillog import outlet
from mailer.maillog.ledger import Ledger, Line, OpenDirectory
from mailer.maillog.retention import remove_old_days


class Level(IntEnum):
    """The severities of syslog(3)."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


Fields = Mapping[str, object]
Sink = Callable[[Level, str, Fields], None]
"""Called with the severity, the text (empty for an event, whose fields say everything), and the fields."""


class Times(msgspec.Struct, frozen=True):
    """The times of a message in one attempt, in seconds since the epoch."""

    received: float
    """When the client began to send it."""
    queued: float
    """When it was accepted, or the operator requeued it."""
    begun: float
    """When this attempt began."""
    handed_over: float | None = None
    """When its final dot was about to be sent; None if it was not."""

    def parts(self, now: float) -> tuple[float, float, float, float]:
        """Divide the time from receipt until now as Postfix divides its `delays`.

        The parts are: before the queue, in the queue, setting up (looking up, connecting, logging in, the
        envelope), and transmitting up to the final reply.
        """
        over = now if self.handed_over is None else self.handed_over
        return (
            _between(self.received, self.queued),
            _between(self.queued, self.begun),
            _between(self.begun, over),
            _between(over, now),
        )


def _between(earlier: float, later: float) -> float:
    """Return the seconds between two times, to the millisecond; 0 if the clock was set back."""
    # `round` to three digits would print and parse the number, at seven times the cost.
    return round((later - earlier) * 1000) / 1000 if later > earlier else 0.0


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
    """None if the times are no longer known."""
    message: str = ""
    """The result of the whole message: `delivered` or `failed`; empty while a recipient is open."""
    again: bool = False
    """Whether the line may be a repetition; see `ledger.Line`."""

    @property
    def status(self) -> Status:
        return self.outcome.status


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A submission that is refused, as far as it had come."""

    peer: str
    user: str = ""
    sender: str | None = None
    """None if MAIL was not given yet."""
    to: tuple[str, ...] = ()
    """The recipient that is refused, or all recipients of a message that is refused."""
    size: int | None = None
    """Octets that were received, or that the client announced."""
    subject: str = ""
    message_id: str = ""


_address = attrgetter("address")
_EXPECTED, _INFO = {Status.SENT, Status.DEFERRED}, Level.INFO


class MailLog:
    """The log of what happened to mail, used by every program."""

    def __init__(
        self,
        clock: Clock,
        sink: Sink,
        ledger: Ledger | None = None,
        *,
        traces: OpenDirectory | None = None,
        keep: float = math.inf,
        shown: Level = Level.INFO,
    ) -> None:
        """Prepare.

        Args:
            clock: returns the current time.
            sink: writes what the operator should see.
            ledger: gets every event; None to keep none.
            traces: opens the directory of traces, which are kept as long as the ledger.
            keep: seconds that the ledger keeps a day after its end.
            shown: the least severe level that the sink shows; it is not called for other events.
        """
        self._shown = shown
        self._clock = clock
        self._sink = sink
        self._ledger = ledger
        self._traces = traces
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
        replays: str = "",
        by: str = "",
    ) -> None:
        """Log that a message is durable; the client gets its 250 after this.

        Args:
            id: the message's id.
            envelope: its envelope, as it will be sent.
            size: octets of the message.
            user: the authenticated user.
            peer: the client's address.
            redirected: recipients that the client gave and that are not in the envelope.
            scheduled: the time of the first attempt, in seconds since the epoch; 0 for immediately.
            subject: decoded; empty if there is none, or it is not to be kept.
            message_id: likewise.
            replays: the message of which this one is a copy for other recipients; empty: none.
            by: the operator that had it made.
        """
        sender, to = envelope.sender, tuple(map(_address, envelope.recipients))
        first = clock.rfc3339(scheduled) if scheduled else ""
        line = Line(
            at=clock.rfc3339(self._clock()),
            event="accepted",
            id=id,
            sender=sender,
            to=to,
            redirected=redirected,
            next=first,
            size=size,
            user=user,
            peer=peer,
            subject=subject,
            message_id=message_id,
            replays=replays,
            by=by,
        )
        # Written out, and not by `_event`: most of what the receiver logs is this.
        told = {
            "id": id,
            "event": "accepted",
            "from": sender or "<>",
            "to": to,
            "redirected": redirected,
            "next": first,
            "size": size,
            "user": user,
            "peer": peer,
            "replays": replays,
            "by": by,
        }
        self._log(Level.INFO, line, told)

    def notified(self, *, id: str, to: tuple[str, ...], notice: str, addressee: str, size: int) -> None:
        """Log that a notification about some recipients of a message is queued.

        Args:
            id: the id of the message.
            to: its recipients that the notification is about.
            notice: the notification's own id.
            addressee: the address that the notification goes to.
            size: octets of the notification.
        """
        self._event(Level.INFO, "notified", {"id": id, "to": to, "notice": notice})
        accepted = {"id": notice, "sender": "", "to": (addressee,), "size": size, "about": id}
        self._event(Level.INFO, "accepted", accepted)

    def rejected(self, refused: "Refused", reply: str) -> None:
        """Log that a transaction, or one recipient of it, was refused."""
        self._event(Level.NOTICE, "rejected", msgspec.structs.asdict(refused) | {"reply": reply})

    def limited(self, refused: "Refused", reply: str) -> None:
        """Log that a message was refused temporarily because of a rate limit."""
        self._event(Level.NOTICE, "limited", msgspec.structs.asdict(refused) | {"reply": reply})

    def login_failed(self, *, peer: str, user: str, more: int = 0) -> None:
        """Log a failed login; args: more: others from `peer` without a line; `user` is the last one's."""
        reason = f"and {more} more from this address in a minute" if more else ""
        fields = {"user": user, "peer": peer, "reason": reason, "more": more}
        self._event(Level.WARNING, "login-failed", fields)

    def delivery(self, line: Delivery) -> None:
        """Log the outcome of one attempt for the recipients that share it."""
        now, outcome = self._clock(), line.outcome
        status = str(outcome.status)
        fields = {
            "id": line.id,
            "sender": line.sender,
            "to": line.to,
            "relay": outcome.hop,
            "delay": _between(line.received, now),
            "delays": line.times.parts(now) if line.times else (),
            "dsn": line.dsn,
            "status": status,
            "reply": outcome.reply,
            "next": line.next,
            "attempt": line.attempt,
            "tls": outcome.tls,
            "message": line.message,
            "again": line.again,
        }
        self._event(_INFO if status in _EXPECTED else Level.WARNING, status, fields)

    def attempt(self, *, id: str, to: tuple[str, ...], relay: str, reply: str, attempt: int) -> None:
        """Log that a next hop was tried without an outcome, and that the same attempt tries another."""
        dsn = enhanced_status(reply)
        fields = {"id": id, "to": to, "relay": relay, "dsn": dsn, "reply": reply, "attempt": attempt}
        self._event(Level.INFO, "attempt", fields)

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
        """Log another event of a message: held, released, requeued, recovered, quarantined, removed.

        `to` are the message's recipients, so that a search for one of them finds this event, too.
        """
        self._event(level, event, {"id": id, "to": to, "reason": reason, "by": by})

    def provider(self, name: str, state: str, reason: str = "", *, level: Level = Level.NOTICE) -> None:
        """Log that a provider's health, as its circuit breaker sees it, has changed to `state`."""
        self._event(level, "provider", {"name": name, "state": state, "reason": reason})

    def forget_old_days(self) -> int:
        """Delete the days of the ledger that have been kept long enough, and traces; return how many days.

        An error of the directory is ignored: it does not affect mail, and was logged when it was written to.
        """
        removed: list[str] = []
        if self._ledger and self._keep < math.inf:
            with contextlib.suppress(OSError):
                removed = remove_old_days(
                    self._ledger.directory, self._clock(), self._keep, traces=self._traces
                )
        for day in removed:
            self.notice("removed a day of the ledger", day=day)
        return len(removed)

    def notice(self, text: str, **fields: object) -> None:
        """Report something about the program itself; it is not written to the ledger."""
        self._say(Level.NOTICE, text, fields)

    def warning(self, text: str, **fields: object) -> None:
        self._say(Level.WARNING, text, fields)

    def error(self, text: str, **fields: object) -> None:
        self._say(Level.ERROR, text, fields)

    def _say(self, level: Level, text: str, fields: dict[str, object]) -> None:
        self._sink(level, text, fields)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what is logged in a block when it ends, with one call for all lines, to save time."""
        with self._ledger.together() if self._ledger else contextlib.nullcontext(), outlet.together():
            yield

    def _event(self, level: Level, event: str, fields: dict[str, object]) -> None:
        at = clock.rfc3339(self._clock())
        line = Line(at=at, event=event, **fields)  # type: ignore[arg-type]  # checked at the callers above
        told = {"id": fields.pop("id", ""), "event": event}
        if (sender := fields.pop("sender", None)) is not None:
            told["from"] = sender or "<>"
        fields.pop("subject", None)
        fields.pop("message_id", None)
        self._log(level, line, told | fields)

    def _log(self, level: Level, line: Line, told: Fields) -> None:
        """Write a line to the ledger, and its fields to the sink.

        Subject and Message-ID are not among them: users who may read the log of a service are often not meant
        to read mail.
        """
        if self._ledger:
            self._ledger.append(line)
        if level <= self._shown:
            self._sink(level, "", told)
