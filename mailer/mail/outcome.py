"""What became of a recipient: the words that the journal, the ledger and the operator share."""

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """One recipient's state (RFC 3464 2.3.3 calls these actions; the words are Postfix's)."""

    PENDING = "pending"
    """Not tried yet."""
    SENT = "sent"
    """The next hop took responsibility."""
    DEFERRED = "deferred"
    """Tried, and will be tried again."""
    BOUNCED = "bounced"
    """Refused for good."""
    EXPIRED = "expired"
    """Not delivered within the maximum age."""
    UNCERTAIN = "uncertain"
    """The message was handed over whole and the final reply was lost: delivered or not, nobody knows."""

    @property
    def final(self) -> bool:
        """Nothing more will be tried for it, unless the operator says so."""
        return self in FINAL


FINAL = frozenset({Status.SENT, Status.BOUNCED, Status.EXPIRED})
"""As `Status.final`, for those that ask it of each recipient of each message."""


class Scope(StrEnum):
    """Whose trouble it is, from narrow to wide; the wider it is, the less it says about the mail."""

    RECIPIENT = "recipient"
    """This recipient at this next hop."""
    MESSAGE = "message"
    """This message, for any recipient."""
    HOST = "host"
    """This host or connection: any other may take the mail."""
    PROVIDER = "provider"
    """Our account or standing there: credentials, quota, policy."""
    LOCAL = "local"
    """Ourselves: disk, memory, configuration."""


class Outcome(msgspec.Struct, frozen=True):
    """What one attempt did for one recipient."""

    address: str
    status: Status
    hop: str
    """The next hop as the operator knows it, such as `smtp.example.com[192.0.2.1]:587` or `local`. Without a
    port: what we say ourselves of a domain or a host, which was not asked."""
    reply: str
    """The remote's own words, or the system's; printable, one line."""
    scope: Scope = Scope.RECIPIENT
    tls: str = ""
    """TLS version, cipher and whether the certificate was verified; or empty."""
    phase: str = ""
    """Which step of the session the reply answered, as `send.phase` names it; empty: not known."""
    unclear: bool = False
    """Deferred, though refused for good, since it is not clear why: to be asked once more."""
    action: str = ""
    """Sent, and the sender asked to hear of it, which the next hop will not see to: `relayed` when it cannot
    (RFC 3461 5.2.2), `delivered` when there is none."""


SUPPRESSION_LIST = "suppression list"
"""The hop of an outcome that nobody was asked for: the operator's list has the recipient, or its domain."""


def server_of(hop: str) -> str:
    """Return the hop without our login there, where it is named with one: senders need not know that."""
    return hop.rpartition("@")[2]


def was_asked(hop: str) -> bool:
    """Tell whether an outcome at a hop is the hop's own word, and not what we found out about it."""
    return hop.rpartition(":")[2].isdigit()
