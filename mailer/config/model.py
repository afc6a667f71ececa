"""The whole configuration as frozen values: what every key means, its unit and its default.

Attributes are the keys in snake_case. A duration or size is a number in the unit that its type names; see
`units` for the strings. `load.load` makes one; a test may make its own.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from mailer.config.hops import DirectDelivery, Provider, Sending, TlsPolicy, by_name, by_priority
from mailer.config.kinds import Count, Group, Limit, Name, Port, Some
from mailer.config.monitoring import Alerts
from mailer.config.on_event import OnEvent
from mailer.config.pace import DomainBudget
from mailer.config.receiving import (
    Listener,
    ListenerTls,
    LocalUser,
    LongLines,
    Offer,
    RateLimits,
    RewriteFrom,
    SubmitHttp,
    Tls,
)
from mailer.config.routing import RouteRule
from mailer.config.secrets import Secret
from mailer.config.units import Bytes, Milliseconds, Seconds


class UncertainPolicy(StrEnum):
    """What follows a lost final reply (RFC 5321 4.2.5: the message may have been delivered, or not)."""

    RETRY = "retry"
    """The same next hop again: never lost, perhaps twice."""
    HOLD = "hold"
    """The operator decides: never twice, perhaps late."""


BOUNCE_SENDER = "sender"
BOUNCE_OFF = "off"
"""The two values of `bounce` that are not an address."""


_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class LogFormat(StrEnum):
    """How the programs that stay write lines on standard error."""

    LOGFMT = "logfmt"
    JSON = "json"


class MissingKey(StrEnum):
    """What becomes of mail whose From domain has no key in `dkim.keys`."""

    HOLD = "hold"
    """It waits, and is tried again until there is one or it expires."""
    SEND = "send"
    """It leaves without a signature of ours."""


class Canonicalization(StrEnum):
    """c=: what may change on the way without breaking a signature, in the header and in the body."""

    RELAXED_RELAXED = "relaxed/relaxed"
    RELAXED_SIMPLE = "relaxed/simple"
    SIMPLE_RELAXED = "simple/relaxed"
    SIMPLE_SIMPLE = "simple/simple"


class DkimKey(Group, frozen=True, kw_only=True):
    """One of several keys. Those of one domain, an RSA and an Ed25519 one for instance, all sign its mail."""

    domain: Name
    """d=; signs mail with this domain in its From field, see `Dkim.match_parent_domain`."""
    selector: Name = "mail"
    """s=."""
    private_key_path: Path | None = None
    """PEM; none: `keys/DOMAIN/SELECTOR.private`, which the loader fills in."""


class Dkim(Group, frozen=True, kw_only=True):
    """DKIM signatures (RFC 6376)."""

    enabled: bool = False
    domain: str = ""
    """d=; empty: the domain of `defaultUsername`, which the loader fills in while there are no `keys`."""
    selector: Name = "mail"
    """s=."""
    private_key_path: Path | None = None
    """PEM; none: `keys/DOMAIN/SELECTOR.private`, which the loader fills in once there is a domain."""
    keys: tuple[DkimKey, ...] = ()
    """More keys, chosen by the From domain. While there are none, the one above signs all mail, as in the Go
    relay; beside others it is one of them, and signs for its own domain."""
    on_missing_key: MissingKey = MissingKey.HOLD
    """A key that is configured and cannot be used always holds the mail."""
    match_parent_domain: bool = False
    """A From domain without a key of its own uses the one of the nearest parent (RFC 7489 3.1.1: relaxed
    alignment takes it)."""
    headers_to_sign: tuple[Name, ...] = ("From", "To", "Subject", "Date", "Message-ID")
    """Fields signed beside those that always are: the ones that readers see or that describe the content."""
    signature_expiry: Seconds = Seconds(604_800)
    """x= less t=; 0: signatures do not expire."""
    canonicalization: Canonicalization = Canonicalization.RELAXED_RELAXED

    @property
    def signing_keys(self) -> tuple[DkimKey, ...]:
        """All keys, the one of `domain` first."""
        if not self.domain:
            return self.keys
        own = DkimKey(domain=self.domain, selector=self.selector, private_key_path=self.private_key_path)
        return (own, *self.keys)


class Security(Group, frozen=True, kw_only=True):
    """Who may submit, and what is kept."""

    allow_local_only: bool = True
    """Bind to loopback and refuse other peers, whatever `smtpHost` says; see `Config.bind_address`."""
    log_all_emails: bool = False
    """Keep a copy of each delivered message in the spool's `sent/`."""
    require_auth: bool = True
    """See `Config.auth_required`."""
    cram_md5: bool = False
    """Offer CRAM-MD5 to `defaultUsername`, for clients that know nothing else; users with a hash cannot."""


class Retry(Group, frozen=True, kw_only=True):
    """When a deferred recipient is tried again, and when to give up."""

    schedule: Annotated[tuple[Some, ...], msgspec.Meta(min_length=1)] = tuple(
        Seconds(60 * minutes) for minutes in (1, 5, 15, 30, 60, 120, 240)
    )
    """The pauses after the first, second, ... attempt; the last repeats."""
    max_age: Some = Seconds(5 * 86_400)
    """Since the message was accepted; recipients not reached by then expire (RFC 5321 4.5.4.1: 4-5 days)."""


class SuppressUnknown(Group, frozen=True, kw_only=True):
    """Whether recipients that their server does not know (5.1.1) go on the suppression list."""

    enabled: bool = False
    confirm_after: Seconds = Seconds(86_400)
    """From the first refusal; the second one that comes later puts it there. 0: the first one does."""
    keep_for: Seconds = Seconds(180 * 86_400)
    """How long an entry counts; 0: until an operator removes it."""


class Dns(Group, frozen=True, kw_only=True):
    """How names are looked up."""

    nameservers: tuple[Name, ...] = ()
    """`ADDRESS` or `ADDRESS:PORT`; empty: those of /etc/resolv.conf."""
    timeout: Some = Seconds(5)
    """For one lookup."""


class Config(Group, frozen=True, kw_only=True):
    """Everything the operator decides. Paths are absolute once loaded."""

    smtp_host: str = "127.0.0.1"
    """Where the receiver listens; empty: all addresses. `security.allowLocalOnly` overrules it."""
    smtp_port: Port = 25
    smtp_tls: Offer | None = None
    """STARTTLS there; None: see `Config.offered_tls`."""
    smtp_auth: Offer | None = None
    """Whether clients log in there; None: as `auth_required` says."""
    default_username: str = ""
    """The one login; empty: there is none."""
    default_password: Secret = Secret("")
    users_file: Path = Path("users.json")
    """More logins, with hashed passwords; `mailer user` writes it, and it need not be there."""
    listeners: tuple[Listener, ...] = ()
    submit_socket: Path | None = None
    """A Unix socket where nobody logs in: the kernel says who connects, and `localUsers` whose mail that is.
    `/run/mailer/submit.sock` is where `mailer-sendmail` looks; none: there is no such socket."""
    local_users: tuple[LocalUser, ...] = ()
    """The first that fits counts; who fits none is refused."""
    submit_http: SubmitHttp = SubmitHttp()
    tls: Tls = Tls()
    hostname: str = ""
    """What we call ourselves in the banner, in Received and in EHLO; empty: the system's name."""
    origin_domain: str = ""
    """Completes sender and recipients that have no domain, such as `root`; empty: `hostname`."""
    aliases: dict[str, str] = msgspec.field(default_factory=dict)
    """Full addresses, by the names without a domain whose mail they get; `*` is for all other names."""
    strict_syntax: bool = False
    """Refuse commands that RFC 5321 does not allow even where they can be read in one way only."""

    spool_dir: Path = Path("spool")
    min_free_space: Bytes = Bytes(64 * 2**20)
    """On the spool's filesystem; with less, new mail gets 452 4.3.1 until there is room."""
    max_message_size: Annotated[Bytes, msgspec.Meta(ge=1)] = Bytes(25 * 2**20)
    """Of one message as submitted (RFC 1870)."""
    max_recipients: Annotated[int, msgspec.Meta(ge=1, le=20_000)] = 1000
    """Of one message. RFC 5321 4.5.3.1.8 asks for 100 at least; the spool takes an envelope of 20,000."""
    max_connections: Count = 4096
    """At the receiver, at once."""
    max_connections_per_peer: Count = 100
    """Of one address beyond this host."""
    max_queued: Limit = 0
    """Messages waiting in the spool, above which new mail gets 452 4.3.1; 0: `minFreeSpace` alone decides."""

    idempotency_window: Seconds = Seconds(86_400)
    """How long mail that comes again under its Idempotency-Key is queued only once; 0: keys mean nothing."""

    max_future_release: Seconds = Seconds(30 * 86_400)
    """How far ahead clients may schedule mail (FUTURERELEASE, RFC 4865); 0: it is not offered."""

    long_lines: LongLines = LongLines.PASS
    hide_client_address: bool = False
    """Leave the client's name and address out of Received."""
    rewrite_from: RewriteFrom = RewriteFrom.KEEP
    rewrite_from_address: str = ""
    """Empty: `defaultUsername`."""
    redirect_all_to: str = ""
    """For staging: all mail goes to this address, save to `allowedRecipients`; X-Original-To says to whom."""
    allowed_recipients: tuple[Name, ...] = ()
    """For staging: addresses and domains that may be sent mail, others get 550 5.7.1; empty: all may."""

    routes: tuple[RouteRule, ...] = ()
    """Which mail goes which way; the first rule that matches counts, for each recipient alone. What none
    matches goes direct, then through the providers by priority."""
    direct_delivery: DirectDelivery = DirectDelivery()
    forward_smtp: bool = msgspec.field(default=False, name="forwardSMTP")
    """The forward route's master switch; off, no provider is used."""
    forward_providers: tuple[Provider, ...] = ()
    """As written; see `providers` for those that count, in order."""
    forward_host: str = ""
    """With the four below: the one provider while `forwardProviders` is empty."""
    forward_port: Port = 587
    forward_username: str = ""
    forward_password: Secret = Secret("")
    forward_ssl: bool = msgspec.field(default=False, name="forwardSSL")
    domain_budgets: tuple[DomainBudget, ...] = ()
    """How much the recipients of some domains may be sent; the first that covers a domain counts."""
    tls_policies: tuple[TlsPolicy, ...] = ()
    """What to demand of which destination, instead of `may`; the first that matches counts."""
    batch_size: Count = 20
    """Recipients in one transaction."""
    batch_delay: Milliseconds = Milliseconds(1000)
    """Between two batches of one message to one next hop."""
    retry: Retry = Retry()
    delay_warning: Seconds = Seconds(0)
    """Age from which the sender is told, once, that a recipient is late; 0: never."""
    bounce: str = BOUNCE_SENDER
    """Who is told of what was given up: `sender`, `off`, or an address; see `BOUNCE_SENDER`."""
    uncertain: UncertainPolicy = UncertainPolicy.RETRY
    sending: Sending = Sending()
    suppress_unknown: SuppressUnknown = SuppressUnknown()
    dns: Dns = Dns()
    dkim: Dkim = Dkim()

    rate_limits: RateLimits = RateLimits()
    security: Security = Security()
    archive_max_age: Some = Seconds(30 * 86_400)
    """How long `sent/` keeps a copy."""
    log_retention: Some = Seconds(30 * 86_400)
    """How long the ledger keeps a day."""
    log_subjects: bool = True
    """Subject and Message-ID of each message go into the ledger, where they can be searched for."""
    log_format: LogFormat = LogFormat.LOGFMT
    """On standard error, of the receiver, the runner and the monitor; `--log-format` overrules it."""
    enable_health_check: bool = True
    """Whether the monitor serves HTTP on loopback."""
    health_check_port: Port = 8025
    admin_token: Secret = Secret("")
    """What callers of the monitor must present to see mail or to act; empty: one is made, in the spool."""
    alerts: Alerts = Alerts()
    on_event: OnEvent = OnEvent()
    """Who is told what became of mail."""

    @property
    def bind_address(self) -> str:
        """Where the receiver really listens: under `allowLocalOnly` loopback and nothing else."""
        if not self.security.allow_local_only:
            return self.smtp_host
        return "::1" if self.smtp_host == "::1" else "127.0.0.1"

    @property
    def auth_required(self) -> bool:
        """Whether a client must log in: when told so, and, as in the Go relay, whenever there is a login."""
        return self.security.require_auth or bool(self.default_username)

    @property
    def offered_tls(self) -> Offer:
        """STARTTLS at `smtpPort`.

        On loopback a certificate that listeners use is not offered unless asked for: what an application
        there makes of a name that is not `localhost` is to refuse it, and its mail is lost.
        """
        if self.smtp_tls is not None:
            return self.smtp_tls
        elsewhere = any(
            each.unix_socket is None and each.tls is not ListenerTls.NONE for each in self.listeners
        )
        return Offer.NONE if elsewhere and self.bind_address in _LOOPBACK else Offer.OFFERED

    @property
    def demanded_logins(self) -> tuple[Offer, ...]:
        """Whether clients log in, at `smtpPort` first, then at each listener."""
        usual = Offer.REQUIRED if self.auth_required else Offer.OFFERED
        return (self.smtp_auth or usual, *(each.auth or usual for each in self.listeners))

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The forward route's providers in the order to try them; none: that route is off."""
        return tuple(provider for equals in self.providers_by_priority.values() for provider in equals)

    @property
    def providers_by_priority(self) -> dict[int, tuple[Provider, ...]]:
        """As `providers`, those of equal priority together."""
        return self._ranked if self.forward_smtp else {}

    @property
    def every_provider(self) -> tuple[Provider, ...]:
        """As `providers`, also while the forward route is switched off."""
        return tuple(provider for equals in self._ranked.values() for provider in equals)

    def name_of(self, provider: Provider) -> str:
        """Return what a provider is called where several may have the same label: see `by_name`."""
        named = by_name(self.every_provider)
        return next((name for name, each in named.items() if each == provider), provider.label)

    @property
    def _ranked(self) -> dict[int, tuple[Provider, ...]]:
        if self.forward_providers:
            return by_priority(self.forward_providers)
        if not self.forward_host:
            return {}
        legacy = Provider(
            host=self.forward_host,
            port=self.forward_port,
            username=self.forward_username,
            password=self.forward_password,
            ssl=self.forward_ssl,
        )
        return {0: (legacy,)}
