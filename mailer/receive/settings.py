"""The settings of a receiver: values only, so that it runs the same from any configuration, or none."""

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
class Terms:
    """What clients of one listener must do, may do, or are not offered."""

    starttls: Offer = Offer.OFFERED
    """Given that there is a certificate."""
    auth: Offer | None = None
    """None: as `Settings.require_auth` says."""


_USUAL = Terms()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to listen at."""

    host: str = "127.0.0.1"
    """Name or address; every address that a name stands for."""
    port: int = 25
    """0 lets the system choose."""
    tls: bool = False
    """TLS from the first byte (RFC 8314), instead of STARTTLS."""
    path: str = ""
    """A Unix socket instead; who may connect is who may enter its directory."""
    submit: bool = False
    """At that socket nobody logs in: the kernel says who connects, see `local_users`."""
    http: bool = False
    """HTTP instead of SMTP, see `web`."""
    terms: Terms = _USUAL
    name: str = ""
    """What the service manager calls a socket that is for this one; empty: any name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One receiver's configuration."""

    host: str = "127.0.0.1"
    """Name or address to listen on; every address that a name stands for."""
    port: int = 25
    """0 lets the system choose."""
    terms: Terms = _USUAL
    """At `host` and `port`."""
    endpoints: tuple[Endpoint, ...] = ()
    """More places to listen at."""
    trusted: Mapping[Endpoint, tuple[TrustedNetwork, ...]] = field(default_factory=dict)
    """Who need not log in, by the endpoint that they come to."""
    hostname: str = "localhost"
    """Our own name in the banner, EHLO and Received."""
    identity: str = ""
    """A word by which our own runner knows us, said in the EHLO reply; empty: none."""
    http_names: tuple[str, ...] = ()
    """What clients beyond this host call it over HTTP, beside `hostname` and its addresses."""
    strict_syntax: bool = False
    """Refuse what RFC 5321 does not allow, also where it is only odd: see `mail.address.Lenient`."""
    origin_domain: str = "localhost"
    """Completes names without a domain."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """See `mail.address.Lenient`."""
    local_only: bool = True
    """Listen on loopback whatever `host` says, and refuse other peers."""
    require_auth: bool = True
    """Nobody submits without a login."""
    max_message_size: int = 25 * MiB
    """Octets after dot-unstuffing, without the field that we add."""
    max_recipients: int = 1000
    """Different recipients in one transaction; RFC 5321 4.5.3.1.8 wants 100 at least."""
    max_connections: int = 4096
    max_connections_per_peer: int = 100
    """From one address that is not on this host."""
    max_errors: int = 100
    """5yz replies in one session since its last accepted message; Postfix: 20, for strangers."""
    max_idle_commands: int = 1000
    """Commands in one session since its last accepted message or recipient."""
    # Real applications send HTML in one line, and a reply they do not read loses that mail. Passing it on
    # breaks no signature, and every server we know takes it.
    long_lines: LongLines = LongLines.PASS
    idle_timeout: float = 300.0
    """Seconds to wait for a command; RFC 5321 4.5.3.2.7 wants five minutes."""
    stall_timeout: float = 300.0
    """Seconds without one more byte of DATA."""
    data_timeout: float = 3600.0
    """Seconds for all of one DATA, however steadily it drips."""
    max_future_release: int = 30 * 86_400
    """Seconds that mail may be scheduled ahead (RFC 4865); 0: not at all."""
    content: ContentPolicy = _UNTOUCHED
    redirect_all_to: str = ""
    """All mail goes here instead, save to `allowed_recipients`; empty: it goes where it says."""
    allowed_recipients: AddressPatterns | None = None
    """Who may be sent mail; None: everybody."""
    stop_grace: float = 30.0
    """Seconds that messages in flight may take once the server is told to stop."""
    drain_quiet: float = 5.0
    """Seconds without a command after which, at a socket that outlives the server, a client is idle then."""
