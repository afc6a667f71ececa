"""What a notification is about, and where it comes from: the values that its parts are made of."""

from dataclasses import dataclass

from mailer.mail.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Subject:
    """The message that a notification is about."""

    id: str
    envelope: Envelope
    received: float
    """Seconds since the epoch."""
    given_up: float
    """When what is open will be given up, in seconds since the epoch."""
    copy: bytes
    """The message, or its header: see `whole`."""
    whole: bool


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What our own part of a notification needs to know."""

    id: str
    """The notification's."""
    hostname: str
    to: str
    now: float
    """Seconds since the epoch."""
