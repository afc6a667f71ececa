"""The result types: what a reply can be about, and a reading with the evidence for it."""

from enum import StrEnum

import msgspec


class About(StrEnum):
    """What a refusal is about. Its code does not tell, since providers use codes differently."""

    RECIPIENT = "recipient"
    """The recipient's address or mailbox."""
    MESSAGE = "message"
    """This message: content, size, form, or a sender address that no server would accept."""
    SENDER = "sender"
    """The sender or From at this hop: not this account's, failing SPF, DKIM or DMARC, or unwanted."""
    ACCOUNT = "account"
    """Our account at this hop: login, activation, suspension, permission to relay."""
    QUOTA = "quota"
    """Our quota or sending rate at this hop."""
    SESSION = "session"
    """Our session or host: EHLO name, address and its reputation, too many connections, a session limit."""
    DESTINATION = "destination"
    """The recipient's domain or its server's rate limit: greylisting, too much mail for one recipient."""
    TRANSACTION = "transaction"
    """Too many recipients or domains in one transaction (RFC 5321 4.5.3.1.10)."""
    HOST = "host"
    """The server itself: disk, load, maintenance, faults, commands that it rejects."""
    UNKNOWN = "unknown"
    """The reply does not say."""


class Reading(msgspec.Struct, frozen=True):
    """The meaning of one reply."""

    about: About
    permanent: bool
    """Whether its code is 5yz."""
    enhanced: str
    """The enhanced status code (RFC 3463) in its standard spelling, such as `5.7.1`; empty: none."""
    evidence: str
    """The words or the code that decided, such as `words "user unknown"`; empty for `UNKNOWN`."""
    reason: str
    source: str
    """Where this is documented or was observed."""
    here: bool = False
    """Whether the refusal of the mail or the recipient may be specific to this hop, such as a size limit."""
    pause: float = 0.0
    """Seconds to pause sending through the account; for `QUOTA`."""
