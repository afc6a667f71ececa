"""Configuration of receiving mail: listeners, TLS, changes to content, rate limits."""

from enum import StrEnum
from pathlib import Path

from mailer.config.key_types import Group, Limit, Name, Port


class Offer(StrEnum):
    """Whether clients must, may or cannot log in, or use STARTTLS (RFC 3207)."""

    REQUIRED = "required"
    OFFERED = "offered"
    NONE = "none"


class ListenerTls(StrEnum):
    """The TLS mode of a listener; all but `none` need a certificate."""

    REQUIRED = "required"
    """STARTTLS is required before a login or a mail."""
    OFFERED = "offered"
    """STARTTLS is optional."""
    STARTTLS = "starttls"
    """The same as `offered`."""
    IMPLICIT = "implicit"
    """TLS from the first byte (RFC 8314)."""
    NONE = "none"

    @property
    def starttls(self) -> Offer:
        if self is ListenerTls.REQUIRED:
            return Offer.REQUIRED
        return Offer.NONE if self is ListenerTls.NONE else Offer.OFFERED


class TrustedNetwork(Group, frozen=True, kw_only=True):
    """Hosts that cannot log in, such as printers, and the user that their mail belongs to."""

    cidr: Name
    """`192.168.7.0/24`, `fd00:7::/64`, or one address. The smallest network that contains a client counts."""
    user: Name
    """`defaultUsername`, or a user of `usersFile`; that user's senders and limits apply."""


class Listener(Group, frozen=True, kw_only=True):
    """An additional address on which the receiver listens, besides `smtpHost` and `smtpPort`."""

    host: str = "127.0.0.1"
    """Empty: all addresses. Must be loopback under `security.allowLocalOnly`."""
    port: Port = 587
    tls: ListenerTls | None = None
    """None: `offered` if there is a certificate, else `none`."""
    auth: Offer | None = None
    """Whether clients must or may log in here; None: see `Config.auth_required`."""
    unix_socket: Path | None = None
    """Listen on a Unix socket at this path instead; every user of this host can connect, as on loopback."""
    trusted_networks: tuple[TrustedNetwork, ...] = ()
    """Networks whose hosts need not log in here; all others must. Only for a listener beyond this host."""
    name: str = ""
    """The socket's name at a service manager that opens it (FileDescriptorName=); empty: the socket is
    recognized by its address."""


class LocalUser(Group, frozen=True, kw_only=True):
    """The user that mail belongs to which a program on this host submits at `submitSocket`."""

    login: str = ""
    """Matches programs of this login, a name or a number; `*`: of every login."""
    group: str = ""
    """Matches programs in this group, a name or a number; instead of `login`."""
    user: Name
    """`defaultUsername`, or a user of `usersFile`; that user's senders and limits apply."""


class SubmitHttp(Group, frozen=True, kw_only=True):
    """Submission over HTTP: clients with a user's token (`mailer user token`) post mail to /v1/messages."""

    enabled: bool = False
    host: str = "127.0.0.1"
    """Empty: all addresses. Must be loopback under `security.allowLocalOnly`, and without `tls`."""
    port: Port = 8026
    tls: bool = False
    """TLS from the first byte, with the certificate of `Config.tls`."""
    names: tuple[Name, ...] = ()
    """Names of this server for clients beyond this host, besides `hostname` and its addresses. A request with
    another Host is refused, since it may come from a browser under DNS rebinding."""


class Tls(Group, frozen=True, kw_only=True):
    """The receiver's certificate. With it STARTTLS is offered; without it only this host can log in.

    Both files are read again when they change, and at SIGHUP; TLS 1.2 and up.
    """

    certificate_path: Path | None = None
    """PEM, the server's own certificate first, then its intermediates."""
    private_key_path: Path | None = None
    """PEM, without a passphrase, readable by the spool's owner."""


class LongLines(StrEnum):
    """What to do with a message that has a line over 998 octets (RFC 5322 2.1.1)."""

    PASS = "pass"  # noqa: S105 - a verb, no password
    """Accept it and pass it on byte for byte."""
    QUOTED_PRINTABLE = "quotedPrintable"
    """Encode the parts with such lines; reply 554 5.6.0 after the message if that would break something."""
    REJECT = "reject"
    """Reply 554 5.6.0 after the message."""


class RewriteFrom(StrEnum):
    """Which address the From field gets."""

    KEEP = "keep"
    REPLACE = "replace"
    """Another address; the display name stays. Mail without a From field gets one."""
    REPLACE_AND_REPLY_TO = "replaceAndReplyTo"
    """As `REPLACE`, and the old address becomes Reply-To, if there was one and there is no Reply-To."""


class RateLimits(Group, frozen=True, kw_only=True):
    """How many messages are accepted per envelope sender and in total, in sliding windows.

    Counts come from the ledger, so they survive a restart. A user's own limits (`mailer user`) always apply.
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
