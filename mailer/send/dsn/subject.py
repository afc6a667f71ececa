"""Input values of a DSN: the message that it is about, and its own id, host, addressee and time."""

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
    """When recipients that are still open will be given up, in seconds since the epoch."""
    copy: bytes
    """The message, or only its header; see `whole`."""
    whole: bool
    """Whether `copy` is the whole message."""
    replays: str = ""
    """The id of the message that this one is a copy of, for other recipients; empty if it is none."""
    by: str = ""
    """The operator that ordered the copy."""


@dataclass(frozen=True, slots=True)
class Letterhead:
    """The values that identify the notification itself."""

    id: str
    """The id of the notification."""
    hostname: str
    to: str
    now: float
    """Seconds since the epoch."""
