"""Configuration of what calls a webhook or a program: alerts, and event delivery (`onEvent`)."""

from enum import StrEnum

from mailer.config.key_types import Group, Name, Seconds
from mailer.config.secrets import Secret


class EventKind(StrEnum):
    """The kinds of events that can be delivered."""

    SENT = "sent"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    DELAYED = "delayed"
    """An attempt ended with the recipient deferred or uncertain; it will be tried again."""
    SUPPRESSED = "suppressed"
    """Not sent, because the recipient is on the suppression list."""
    HELD = "held"


class EventField(StrEnum):
    """Optional fields of an event, which always has its id, its kind, its time and the message's id."""

    SENDER = "from"
    RECIPIENT = "to"
    RELAY = "relay"
    DSN = "dsn"
    REPLY = "reply"
    """The server's reply, which often contains the recipient."""
    ATTEMPT = "attempt"
    NEXT = "next"
    DELAY = "delay"
    REASON = "reason"


class OnEvent(Group, frozen=True, kw_only=True):
    """The receiver of events, either `webhook` or `command`, and what it gets."""

    webhook: Secret = Secret("")
    """A URL that gets events by POST; a secret, since some services put a token into it."""
    secret: Secret = Secret("")
    """The key with which requests to the webhook are signed."""
    command: tuple[Name, ...] = ()
    """A program and its arguments, run without a shell, with events on its standard input, one per line."""
    events: tuple[EventKind, ...] = (
        EventKind.SENT,
        EventKind.BOUNCED,
        EventKind.EXPIRED,
        EventKind.DELAYED,
        EventKind.SUPPRESSED,
    )
    fields: tuple[EventField, ...] = tuple(EventField)
    """Addresses are personal data; without `from`, `to` and `reply` an event contains none."""

    @property
    def enabled(self) -> bool:
        return bool(self.command) or not self.webhook.empty


class Alerts(Group, frozen=True, kw_only=True):
    """Which alerts to send, and how; never by mail, since mail itself may be stuck."""

    queue_older_than: Seconds = Seconds(0)
    """Alert if the oldest waiting message is older than this; 0: never."""
    failed_more_than: int | None = None
    """Alert if there are more messages than this in `failed/`; None: never."""
    no_run_for: Seconds = Seconds(0)
    """Alert if no run of mailer-send has succeeded for this long; 0: never."""
    events_older_than: Seconds = Seconds(0)
    """Alert if an event has waited longer than this for the receiver of `onEvent`; 0: never."""
    secret_ends_within: Seconds = Seconds(14 * 86_400)
    """Alert if a secret, certificate or refresh token for a provider's tokens ends within this; 0: never."""
    command: tuple[Name, ...] = ()
    """A program and its arguments, run without a shell, with the alert as JSON on its standard input."""
    webhook: Secret = Secret("")
    """A URL that gets the alert as JSON by POST; a secret, since anyone who knows it can post there."""
