"""The phases of an SMTP session, and how long each may take (RFC 5321 4.5.3.2)."""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What the session was waiting for; the journal shows this word when the wait failed."""

    LOOKUP = "lookup"
    """DNS, which has its own time-out."""
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    TLS = "tls"
    """The TLS handshake."""
    AUTH = "auth"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    """Between 354 and the final dot."""
    DOT = "dot"
    """The final dot is sent and its reply has not arrived. This is the only phase in which a lost connection
    leaves the outcome uncertain."""
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each phase may take, in seconds; one attribute for each `Phase`, of the same name.

    Each is a deadline for one complete reply, not for the next byte, so a tarpit that sends a byte a minute
    gains nothing. The times of RFC 5321 are not shortened, because shorter ones cause duplicates.
    """

    connect: float = 30  # for each address; not in an RFC; Postfix's smtp_connect_timeout
    banner: float = 300  # RFC 5321 4.5.3.2.1
    ehlo: float = 300  # not in an RFC; the same as MAIL
    starttls: float = 120  # not in an RFC; the server looks nothing up for it
    tls: float = 60  # not in an RFC; some round trips and one signature
    auth: float = 120  # for each step; not in an RFC; the server may have to ask a directory
    rset: float = 20  # not in an RFC; Postfix's smtp_rset_timeout
    mail: float = 300  # RFC 5321 4.5.3.2.2
    rcpt: float = 300  # RFC 5321 4.5.3.2.3, each
    data: float = 120  # RFC 5321 4.5.3.2.4
    body: float = 180  # RFC 5321 4.5.3.2.5, for each block written (`client.BLOCK` octets)
    dot: float = 600  # RFC 5321 4.5.3.2.6: anything shorter causes duplicates
    quit: float = 5  # nothing depends on the reply any more

    def of(self, phase: Phase) -> float:
        limit: float = getattr(self, phase)  # a StrEnum is its string; `.value` takes five times as long
        return limit
