"""The part of the model that configures event delivery (`onEvent`)."""

from enum import StrEnum

from mailer.config.kinds import Group, Name
from mailer.config.secrets import Secret


class EventKind(StrEnum):
    """What may be told."""

    SENT = "sent"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    DELAYED = "delayed"
    """An attempt ended with the recipient deferred or in doubt; it will be tried again."""
    SUPPRESSED = "suppressed"
    """Not sent, since the suppression list has the recipient."""
    HELD = "held"


class EventField(StrEnum):
    """What an event may say beside its id, its kind, its time and the message's id."""

    SENDER = "from"
    RECIPIENT = "to"
    RELAY = "relay"
    DSN = "dsn"
    REPLY = "reply"
    """In the server's words, which often name the recipient."""
    ATTEMPT = "attempt"
    NEXT = "next"
    DELAY = "delay"
    REASON = "reason"


class OnEvent(Group, frozen=True, kw_only=True):
    """Whom to tell; one of `webhook` and `command`."""

    webhook: Secret = Secret("")
    """A URL that gets events by POST; a secret, since some services put a token into it."""
    secret: Secret = Secret("")
    """Signs what the webhook gets."""
    command: tuple[Name, ...] = ()
    """A program and its arguments, run without a shell, with events on its standard input, one a line."""
    events: tuple[EventKind, ...] = (
        EventKind.SENT,
        EventKind.BOUNCED,
        EventKind.EXPIRED,
        EventKind.DELAYED,
        EventKind.SUPPRESSED,
    )
    fields: tuple[EventField, ...] = tuple(EventField)
    """Addresses are personal data: without `from`, `to` and `reply` an event has none."""

    @property
    def enabled(self) -> bool:
        return bool(self.command) or not self.webhook.empty
