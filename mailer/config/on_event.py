"""Configuration of event delivery (`onEvent`)."""

from enum import StrEnum

from mailer.config.key_types import Group, Name
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
