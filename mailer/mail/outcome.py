"""Outcomes: the status of a recipient after an attempt, in the terms of the journal and the ledger."""

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """The state of one recipient (RFC 3464 2.3.3 calls these actions; the words are Postfix's)."""

    PENDING = "pending"
    """Not tried yet."""
    SENT = "sent"
    """The next hop took responsibility for it."""
    DEFERRED = "deferred"
    """Tried, and will be tried again."""
    BOUNCED = "bounced"
    """Refused permanently."""
    EXPIRED = "expired"
    """Not delivered within the maximum age."""
    UNCERTAIN = "uncertain"
    """The message was transmitted completely and the final reply was lost: it may or may not be delivered."""

    @property
    def final(self) -> bool:
        """Whether no further attempt follows, unless the operator asks for one."""
        return self in FINAL


FINAL = frozenset({Status.SENT, Status.BOUNCED, Status.EXPIRED})
"""The statuses with `Status.final`; a set is faster for callers that test each recipient of each message."""


class Scope(StrEnum):
    """What a failure concerns, from narrow to wide; the wider, the less it says about the message."""

    RECIPIENT = "recipient"
    """This recipient at this next hop."""
    MESSAGE = "message"
    """This message, for any recipient."""
    HOST = "host"
    """This host or connection; any other host may accept the mail."""
    PROVIDER = "provider"
    """Our account or reputation at the provider: credentials, quota, policy."""
    LOCAL = "local"
    """This host: disk, memory, configuration."""


class Outcome(msgspec.Struct, frozen=True):
    """The result of one attempt for one recipient."""

    address: str
    status: Status
    hop: str
    """The next hop as the operator knows it, such as `smtp.example.com[192.0.2.1]:587` or `local`. Without a
    port, the outcome is our own conclusion about a domain or host that was not contacted."""
    reply: str
    """The server's reply, or the system's error message; printable, one line."""
    scope: Scope = Scope.RECIPIENT
    tls: str = ""
    """TLS version, cipher and whether the certificate was verified; empty: no TLS."""
    phase: str = ""
    """Which step of the session the reply answered, as `send.phase` names it; empty: not known."""
    unclear: bool = False
    """Deferred once although the refusal was permanent, because its reason is not clear."""
    batch: int = 0
    """Set if the session broke at one of several recipients: how many the next transaction may have."""
    action: str = ""
    """Set for a sent recipient if the sender asked for a success DSN that we must send: `relayed` if the next
    hop does not support DSNs (RFC 3461 5.2.2), `delivered` if there is no next hop."""


SUPPRESSION_LIST = "suppression list"
"""The hop of outcomes without contact to a server: the operator's list has the recipient or its domain."""


def server_of(hop: str) -> str:
    """Return the hop without our login name, which some hops include and senders need not see."""
    return hop.rpartition("@")[2]


def was_asked(hop: str) -> bool:
    """Return whether an outcome is the hop's own answer, and not our conclusion about it."""
    return hop.rpartition(":")[2].isdigit()
