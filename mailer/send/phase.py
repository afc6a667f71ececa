"""The phases of an SMTP session, and how long each may take (RFC 5321 4.5.3.2)."""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What the session was waiting for; the word that the journal shows when it waited in vain."""

    LOOKUP = "lookup"
    """DNS, which has a time-out of its own."""
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    TLS = "tls"
    """The handshake."""
    AUTH = "auth"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    """Between 354 and the final dot."""
    DOT = "dot"
    """The final dot is out, its reply is not in: the only phase in which a loss leaves doubt."""
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each phase may take, in seconds; one attribute for each `Phase`, of the same name.

    Each is a deadline for one complete reply, not for the next byte: a tarpit that feeds a byte a minute
    gains nothing by it. The times of RFC 5321 are not shortened: waiting less makes duplicates.
    """

    connect: float = 30  # for each address; no RFC; Postfix's smtp_connect_timeout
    banner: float = 300  # RFC 5321 4.5.3.2.1
    ehlo: float = 300  # no RFC; as MAIL
    starttls: float = 120  # no RFC; nothing is looked up for it
    tls: float = 60  # no RFC; some round trips and one signature
    auth: float = 120  # for each step; no RFC; the server may have to ask a directory
    rset: float = 20  # no RFC; Postfix's smtp_rset_timeout
    mail: float = 300  # RFC 5321 4.5.3.2.2
    rcpt: float = 300  # RFC 5321 4.5.3.2.3, each
    data: float = 120  # RFC 5321 4.5.3.2.4
    body: float = 180  # RFC 5321 4.5.3.2.5, for each block written (`client.BLOCK` octets)
    dot: float = 600  # RFC 5321 4.5.3.2.6: anything shorter makes duplicates
    quit: float = 5  # nothing depends on it any more: politeness has a price limit

    def of(self, phase: Phase) -> float:
        limit: float = getattr(self, phase)  # a phase is its word; `.value` takes five times as long
        return limit
