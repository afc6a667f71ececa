"""One method per mail event: the ledger gets all of them, standard error those that the operator should see.

Lines on standard error are logfmt, one event each, whatever a value contains: controls are escaped, so nobody
can write a line of ours by putting a line end into an address.
"""

import contextlib
import sys
from collections.abc import Callable
from enum import IntEnum

import msgspec

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.envelope import Envelope
from mailer.mail.outcome import Outcome, Status
from mailer.mail.reply import printable
from mailer.maillog.ledger import Ledger, Line


class Level(IntEnum):
    """syslog(3)'s severities, as journald reads them at the start of a line."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


Sink = Callable[[Level, str], None]


def stderr_sink(level: Level, *, journald: bool = False) -> Sink:
    """Write lines up to a level to standard error; with `journald`, each begins with its `<N>`.

    Trouble with standard error (a full disk under a redirection, a reader that left) never stops mail.
    """

    def write(severity: Level, text: str) -> None:
        if severity <= level:
            prefix = f"<{severity:d}>" if journald else ""
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{prefix}{text}\n")
                sys.stderr.flush()

    return write


def logfmt(fields: dict[str, object]) -> str:
    """Write fields as `key=value`, quoted where a reader could stumble; empty ones are left out."""
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items() if value not in ("", None, ()))


def _value(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    text = printable(text, 2000)
    if text and not any(c in ' "=' for c in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


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

    @property
    def status(self) -> Status:
        return self.outcome.status


class MailLog:
    """Where every program says what happened."""

    def __init__(self, clock: Clock, sink: Sink, ledger: Ledger | None = None) -> None:
        self._clock = clock
        self._sink = sink
        self._ledger = ledger

    def accepted(self, *, id: str, envelope: Envelope, size: int, user: str, peer: str) -> None:
        """Tell that a message is durable and the client is about to be told."""
        to = tuple(recipient.address for recipient in envelope.recipients)
        self._event(
            Level.INFO, "accepted", id=id, sender=envelope.sender, to=to, size=size, user=user, peer=peer
        )

    def rejected(self, *, peer: str, user: str, sender: str, recipient: str, reply: str) -> None:
        """Tell that a transaction, or one recipient of it, was refused."""
        to = (recipient,) if recipient else ()
        self._event(Level.NOTICE, "rejected", sender=sender, to=to, user=user, peer=peer, reply=reply)

    def login_failed(self, *, peer: str, user: str) -> None:
        self._event(Level.WARNING, "login-failed", user=user, peer=peer)

    def delivery(self, line: Delivery) -> None:
        """Tell what one attempt did for recipients that share an outcome."""
        level = Level.INFO if line.status in {Status.SENT, Status.DEFERRED} else Level.WARNING
        self._event(
            level,
            line.status.value,
            id=line.id,
            sender=line.sender,
            to=line.to,
            relay=line.outcome.hop,
            delay=round(max(0.0, self._clock() - line.received), 3),
            dsn=line.dsn,
            status=line.status.value,
            reply=line.outcome.reply,
            next=line.next,
            attempt=line.attempt,
            tls=line.outcome.tls,
        )

    def message(
        self, event: str, *, id: str, reason: str = "", by: str = "", level: Level = Level.NOTICE
    ) -> None:
        """Tell what else became of a message: held, released, requeued, recovered, quarantined, removed."""
        self._event(level, event, id=id, reason=reason, by=by)

    def provider(self, name: str, state: str, reason: str = "") -> None:
        """Tell that a provider's health changed, as its breaker sees it: what it is called, and is now."""
        self._event(Level.NOTICE, "provider", name=name, state=state, reason=reason)

    def notice(self, text: str, **fields: object) -> None:
        """Say something of the program itself; not in the ledger."""
        self._say(Level.NOTICE, text, fields)

    def warning(self, text: str, **fields: object) -> None:
        self._say(Level.WARNING, text, fields)

    def error(self, text: str, **fields: object) -> None:
        self._say(Level.ERROR, text, fields)

    def _say(self, level: Level, text: str, fields: dict[str, object]) -> None:
        self._sink(level, f"{printable(text, 2000)} {logfmt(fields)}".rstrip())

    def _event(self, level: Level, event: str, **fields: object) -> None:
        at = clock.rfc3339(self._clock())
        line = Line(at=at, event=event, **fields)  # type: ignore[arg-type]  # checked at the callers above
        if self._ledger:
            self._ledger.append(line)
        known = {("from" if name == "sender" else name): value for name, value in fields.items()}
        if fields.get("sender") == "":
            known["from"] = "<>"
        self._sink(level, logfmt({"id": known.pop("id", ""), "event": event} | known))
