"""The values of this room: what a reply can be about, and a reading with the evidence that decided it."""

from enum import StrEnum

import msgspec


class About(StrEnum):
    """Whom or what a refusal concerns, which its code does not tell: providers disagree about codes."""

    RECIPIENT = "recipient"
    """The recipient's address or mailbox."""
    MESSAGE = "message"
    """This mail: content, size, form, or a sender address that is valid nowhere."""
    SENDER = "sender"
    """Its sender or From here: not this account's, not authenticated by SPF, DKIM or DMARC, not wanted."""
    ACCOUNT = "account"
    """Our account there: login, activation, suspension, permission to relay."""
    QUOTA = "quota"
    """Our quota or pace there."""
    SESSION = "session"
    """Our session or host: EHLO name, address and its reputation, too many connections, a session's limit."""
    DESTINATION = "destination"
    """The recipient's domain or its server's pace: greylisting, too much mail for one recipient."""
    TRANSACTION = "transaction"
    """Too many recipients, or domains, in one transaction (RFC 5321 4.5.3.1.10)."""
    HOST = "host"
    """The host itself: disk, load, maintenance, faults, commands that it does not follow."""
    UNKNOWN = "unknown"
    """It does not say."""


class Reading(msgspec.Struct, frozen=True):
    """What one reply says."""

    about: About
    permanent: bool
    """As said by its code: 5yz."""
    enhanced: str
    """The enhanced status code (RFC 3463), in whatever spelling it came, such as `5.7.1`; or empty."""
    evidence: str
    """The words or the code that decided, such as `words "user unknown"`; empty for `UNKNOWN`."""
    reason: str
    source: str
    """Where that is documented or was seen."""
    here: bool = False
    """A refusal of the mail or the recipient that another hop need not share, such as a limit of size."""
    pause: float = 0.0
    """Seconds to leave the account alone; for `QUOTA`."""
