"""The parts of the model that say how mail is received: listeners, TLS, what becomes of content, limits."""

from enum import StrEnum
from pathlib import Path

from mailer.config.kinds import Group, Limit, Name, Port


class Offer(StrEnum):
    """Whether clients must, may or cannot do something: log in, or encrypt by STARTTLS (RFC 3207)."""

    REQUIRED = "required"
    OFFERED = "offered"
    NONE = "none"


class ListenerTls(StrEnum):
    """How a listener speaks TLS; all but `none` need a certificate."""

    REQUIRED = "required"
    """By STARTTLS, before a login or a mail."""
    OFFERED = "offered"
    """By STARTTLS, when the client asks for it."""
    STARTTLS = "starttls"
    """The same as `offered`."""
    IMPLICIT = "implicit"
    """From the first byte (RFC 8314)."""
    NONE = "none"

    @property
    def starttls(self) -> Offer:
        if self is ListenerTls.REQUIRED:
            return Offer.REQUIRED
        return Offer.NONE if self is ListenerTls.NONE else Offer.OFFERED


class TrustedNetwork(Group, frozen=True, kw_only=True):
    """Hosts that cannot log in, such as printers, and whose mail that is."""

    cidr: Name
    """`192.168.7.0/24`, `fd00:7::/64`, or one address. The smallest network that has a client counts."""
    user: Name
    """`defaultUsername`, or one of `usersFile`: with that user's senders and limits."""


class Listener(Group, frozen=True, kw_only=True):
    """One more place where the receiver listens, beside `smtpHost` and `smtpPort`."""

    host: str = "127.0.0.1"
    """Empty: all addresses. Must be loopback under `security.allowLocalOnly`."""
    port: Port = 587
    tls: ListenerTls | None = None
    """None: `offered` when there is a certificate, else `none`."""
    auth: Offer | None = None
    """Whether clients log in here; None: as `Config.auth_required` says."""
    unix_socket: Path | None = None
    """A Unix socket at this path instead; open to every user of this host, as loopback is."""
    trusted_networks: tuple[TrustedNetwork, ...] = ()
    """Who need not log in here; all others do. For a listener beyond this host alone."""
    name: str = ""
    """What a service manager that opens this socket calls it (FileDescriptorName=); empty: it goes by its
    address."""


class LocalUser(Group, frozen=True, kw_only=True):
    """Whose mail it is that a program on this host submits at `submitSocket`."""

    login: str = ""
    """Programs of this login here, a name or a number; `*`: of every login."""
    group: str = ""
    """Instead: programs in this group, a name or a number."""
    user: Name
    """`defaultUsername`, or one of `usersFile`: with that user's senders and limits."""


class SubmitHttp(Group, frozen=True, kw_only=True):
    """Submission by HTTP: who presents a user's token (`mailer user token`) posts mail to /v1/messages."""

    enabled: bool = False
    host: str = "127.0.0.1"
    """Empty: all addresses. Must be loopback under `security.allowLocalOnly`, and without `tls`."""
    port: Port = 8026
    tls: bool = False
    """From the first byte, with the certificate of `Config.tls`."""
    names: tuple[Name, ...] = ()
    """What clients beyond this host call this server, beside `hostname` and its addresses; a request that
    names another is refused, since a browser may have been made to send it."""


class Tls(Group, frozen=True, kw_only=True):
    """The receiver's certificate: with one STARTTLS is offered; without it only this host can log in.

    Both files are read again when they change, and at SIGHUP; TLS 1.2 and up.
    """

    certificate_path: Path | None = None
    """PEM, the server's own first, then its intermediates."""
    private_key_path: Path | None = None
    """PEM, without a passphrase, readable by the spool's owner."""


class LongLines(StrEnum):
    """What becomes of a message with a line over 998 octets (RFC 5322 2.1.1)."""

    PASS = "pass"  # noqa: S105 - a verb, no password
    """Taken and passed on byte for byte."""
    QUOTED_PRINTABLE = "quotedPrintable"
    """The parts of it that have one are encoded; 554 5.6.0 at its end where that would break something."""
    REJECT = "reject"
    """554 5.6.0 at its end."""


class RewriteFrom(StrEnum):
    """Whose address the From field shows."""

    KEEP = "keep"
    REPLACE = "replace"
    """Another address; the display name stays. Mail without a From field gets one."""
    REPLACE_AND_REPLY_TO = "replaceAndReplyTo"
    """The same, and replies go to the old one, if there was one and there is no Reply-To."""


class RateLimits(Group, frozen=True, kw_only=True):
    """How many messages are accepted, by envelope sender and in all, in sliding windows.

    The ledger is the count's memory: it outlasts a restart. A user's own limits (`mailer user`) always hold.
    """

    enabled: bool = False
    max_per_hour: Limit = 500
    """Messages of one sender."""
    max_per_day: Limit = 2000
    """Messages of one sender."""
    global_max_per_hour: Limit = 0
    """Messages of all senders."""
    global_max_per_day: Limit = 0
    """Messages of all senders."""
