"""The settings of a receiver as plain values, so that it runs from any source of configuration, or none."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailer.config.receiving import LongLines, Offer
from mailer.mail.patterns import AddressPatterns
from mailer.receive.content.header_policy import ContentPolicy
from mailer.receive.users.trusted import TrustedNetwork

MiB = 1024 * 1024


Address = tuple[str, int]
"""Host and port, or the path of a Unix socket and 0."""

_UNTOUCHED = ContentPolicy()


@dataclass(frozen=True, slots=True)
class Offers:
    """Whether one listener requires, offers or does not offer STARTTLS and AUTH."""

    starttls: Offer = Offer.OFFERED
    """Offered only if there is a certificate."""
    auth: Offer | None = None
    """None: as `Settings.require_auth` says."""


_USUAL = Offers()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One listener: an address or a Unix socket, its protocol and its terms."""

    host: str = "127.0.0.1"
    """A name or address; a name stands for all of its addresses."""
    port: int = 25
    """0 lets the system choose."""
    tls: bool = False
    """TLS from the first byte (RFC 8314), instead of STARTTLS."""
    path: str = ""
    """The path of a Unix socket to use instead; its directory's mode limits which programs can connect."""
    submit: bool = False
    """Identify clients of that socket by their user ids instead of a login, see `local_users`."""
    http: bool = False
    """Speak HTTP instead of SMTP, see `web`."""
    offers: Offers = _USUAL
    name: str = ""
    """The name that identifies an inherited socket for this listener; empty: match it by its address."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One receiver's configuration."""

    host: str = "127.0.0.1"
    """The name or address to listen on; a name stands for all of its addresses."""
    port: int = 25
    """0 lets the system choose."""
    offers: Offers = _USUAL
    """The terms of the listener at `host` and `port`."""
    endpoints: tuple[Endpoint, ...] = ()
    """Additional listeners."""
    trusted: Mapping[Endpoint, tuple[TrustedNetwork, ...]] = field(default_factory=dict)
    """Networks whose hosts need not log in, by listener."""
    hostname: str = "localhost"
    """This server's name in the greeting, EHLO and Received."""
    identity: str = ""
    """A word in the EHLO reply by which a runner recognises its own receiver; empty: none."""
    http_names: tuple[str, ...] = ()
    """More names that remote HTTP clients may use for this server, besides `hostname` and its addresses."""
    strict_syntax: bool = False
    """Refuse everything that RFC 5321 does not allow, even if harmless: see `mail.address.Lenient`."""
    origin_domain: str = "localhost"
    """The domain that completes names without one."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """See `mail.address.Lenient`."""
    local_only: bool = True
    """Listen on loopback whatever `host` says, and refuse other peers."""
    require_auth: bool = True
    """Require a login from clients."""
    max_message_size: int = 25 * MiB
    """Octets after dot-unstuffing, without the header fields that this server adds."""
    max_recipients: int = 1000
    """Different recipients in one transaction; RFC 5321 4.5.3.1.8 requires at least 100."""
    max_connections: int = 4096
    max_connections_per_peer: int = 100
    """Connections from one address that is not on this host."""
    max_errors: int = 100
    """5yz replies in one session since its last accepted message (Postfix: 20, for unknown clients)."""
    max_idle_commands: int = 1000
    """Commands in one session since its last accepted message, not counting RCPT and chunks."""
    # Real applications send HTML in one line, and would lose that mail if they ignore the reply. Passing it
    # on breaks no signature, and every server we know accepts it.
    long_lines: LongLines = LongLines.PASS
    idle_timeout: float = 300.0
    """Seconds to wait for a command (RFC 5321 4.5.3.2.7 requires five minutes)."""
    stall_timeout: float = 300.0
    """Seconds to wait for more bytes of a message."""
    data_timeout: float = 3600.0
    """Seconds for one whole message, however steadily its bytes arrive."""
    max_future_release: int = 30 * 86_400
    """Seconds that mail may be scheduled ahead (RFC 4865); 0: FUTURERELEASE is off."""
    content: ContentPolicy = _UNTOUCHED
    redirect_all_to: str = ""
    """The address that gets all mail, except mail to `allowed_recipients`; empty: mail is not redirected."""
    allowed_recipients: AddressPatterns | None = None
    """The recipients that may get mail; None: any."""
    stop_grace: float = 30.0
    """Seconds for messages in flight to finish once the server is stopping."""
    drain_quiet: float = 5.0
    """Seconds without a command after which a client counts as idle when the server stops; used for listening
    sockets that outlive the server."""
