"""The complete configuration as frozen values: the meaning, unit and default of every key.

Attributes are the keys in snake_case. A duration or size is a number in the unit that its type names;
`key_types` defines the strings that a file may contain. `load.load` returns a `Config`; tests may build
their own.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from mailer.config.calls import Alerts, OnEvent
from mailer.config.hops import (
    DirectDelivery,
    DomainBudget,
    Provider,
    Sending,
    TlsPolicy,
    by_name,
    by_priority,
)
from mailer.config.key_types import Bytes, Count, Group, Limit, Milliseconds, Name, Port, Seconds, Some
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
from mailer.mail.host_name import is_loopback, loopback_address


class UncertainPolicy(StrEnum):
    """What to do if the final reply is lost (RFC 5321 4.2.5: it is unknown whether mail was delivered)."""

    RETRY = "retry"
    """Try the same next hop again: mail is never lost, but may be delivered twice."""
    HOLD = "hold"
    """Let the operator decide: mail is never delivered twice, but may be late."""


BOUNCE_SENDER = "sender"
BOUNCE_OFF = "off"
"""The two values of `bounce` that are not an address."""


class LogFormat(StrEnum):
    """The format in which long-running programs write lines to standard error."""

    LOGFMT = "logfmt"
    JSON = "json"


class MissingKey(StrEnum):
    """What to do with mail whose From domain has no key in `dkim.keys`."""

    HOLD = "hold"
    """Defer it until there is a key or it expires."""
    SEND = "send"
    """Send it without our signature."""


class Canonicalization(StrEnum):
    """c=: how header and body are normalized, so that some changes in transit do not break a signature."""

    RELAXED_RELAXED = "relaxed/relaxed"
    RELAXED_SIMPLE = "relaxed/simple"
    SIMPLE_RELAXED = "simple/relaxed"
    SIMPLE_SIMPLE = "simple/simple"


class DkimKey(Group, frozen=True, kw_only=True):
    """One of several keys. All keys of a domain, for instance RSA and Ed25519, sign its mail."""

    domain: Name
    """d=; the key signs mail with this domain in its From field, see `Dkim.match_parent_domain`."""
    selector: Name = "mail"
    """s=."""
    private_key_path: Path | None = None
    """The PEM file; None: `keys/DOMAIN/SELECTOR.private`, which the loader fills in."""


class Dkim(Group, frozen=True, kw_only=True):
    """DKIM signatures (RFC 6376)."""

    enabled: bool = False
    domain: str = ""
    """d=; empty: the domain of `defaultUsername`, which the loader fills in while there are no `keys`."""
    selector: Name = "mail"
    """s=."""
    private_key_path: Path | None = None
    """The PEM file; None: `keys/DOMAIN/SELECTOR.private`, which the loader fills in if there is a domain."""
    keys: tuple[DkimKey, ...] = ()
    """More keys, chosen by the From domain. Without them the key above signs all mail, as in the Go relay;
    with them it signs mail of its own domain only."""
    on_missing_key: MissingKey = MissingKey.HOLD
    """Applies if no key is configured. Mail is always deferred if a configured key cannot be used."""
    match_parent_domain: bool = False
    """Whether a From domain without its own key uses that of its nearest parent domain (RFC 7489 3.1.1:
    relaxed alignment accepts it)."""
    headers_to_sign: tuple[Name, ...] = ("From", "To", "Subject", "Date", "Message-ID")
    """Fields to sign in addition to those that are always signed, which are the ones that readers see or that
    describe the content."""
    signature_expiry: Seconds = Seconds(604_800)
    """Lifetime of a signature, x= minus t=; 0: signatures do not expire."""
    canonicalization: Canonicalization = Canonicalization.RELAXED_RELAXED

    @property
    def signing_keys(self) -> tuple[DkimKey, ...]:
        """All keys; that of `domain` comes first."""
        if not self.domain:
            return self.keys
        own = DkimKey(domain=self.domain, selector=self.selector, private_key_path=self.private_key_path)
        return (own, *self.keys)


class Security(Group, frozen=True, kw_only=True):
    """Access control for submission, and archiving."""

    allow_local_only: bool = True
    """Bind to loopback and refuse other peers, regardless of `smtpHost`; see `Config.bind_address`."""
    log_all_emails: bool = False
    """Keep a copy of each delivered message in the spool's `sent/`."""
    require_auth: bool = True
    """See `Config.auth_required`."""
    cram_md5: bool = False
    """Offer CRAM-MD5 for `defaultUsername`, for clients that support nothing else. It needs the plain
    password, so users with a hash cannot use it."""


class Retry(Group, frozen=True, kw_only=True):
    """When a deferred recipient is tried again, and when to give up."""

    schedule: Annotated[tuple[Some, ...], msgspec.Meta(min_length=1)] = tuple(
        Seconds(60 * minutes) for minutes in (1, 5, 15, 30, 60, 120, 240)
    )
    """The delays after the first, second, ... attempt; the last one repeats."""
    max_age: Some = Seconds(5 * 86_400)
    """The age since acceptance at which undelivered recipients expire (RFC 5321 4.5.4.1: 4-5 days)."""


class SuppressUnknown(Group, frozen=True, kw_only=True):
    """Whether recipients that their server reports as unknown (5.1.1) are added to the suppression list."""

    enabled: bool = False
    confirm_after: Seconds = Seconds(86_400)
    """Time after the first refusal from which a second one adds the entry. 0: the first one adds it."""
    keep_for: Seconds = Seconds(180 * 86_400)
    """Lifetime of an entry; 0: until an operator removes it."""


class Dns(Group, frozen=True, kw_only=True):
    """DNS lookups."""

    nameservers: tuple[Name, ...] = ()
    """`ADDRESS` or `ADDRESS:PORT`; empty: those of /etc/resolv.conf."""
    timeout: Some = Seconds(5)
    """Timeout of one lookup."""


class Config(Group, frozen=True, kw_only=True):
    """The root of the configuration. Paths are absolute after loading."""

    smtp_host: str = "127.0.0.1"
    """The address on which the receiver listens; empty: all. `security.allowLocalOnly` overrides it."""
    smtp_port: Port = 25
    smtp_tls: Offer | None = None
    """STARTTLS at `smtpPort`; None: see `Config.offered_tls`."""
    smtp_auth: Offer | None = None
    """Whether clients must or may log in at `smtpPort`; None: see `auth_required`."""
    default_username: str = ""
    """The login that the configuration itself defines; empty: none."""
    default_password: Secret = Secret("")
    users_file: Path = Path("users.json")
    """The file of further logins, with hashed passwords; `mailer user` writes it, and it may be missing."""
    listeners: tuple[Listener, ...] = ()
    submit_socket: Path | None = None
    """A Unix socket without logins: the kernel reports the connecting user, and `localUsers` maps it to a
    user of mailer. `mailer-sendmail` expects it at `/run/mailer/submit.sock`. None: no such socket."""
    local_users: tuple[LocalUser, ...] = ()
    """The first entry that matches counts; clients that match none are refused."""
    submit_http: SubmitHttp = SubmitHttp()
    tls: Tls = Tls()
    hostname: str = ""
    """Our name in the banner, in Received and in EHLO; empty: the system's name."""
    origin_domain: str = ""
    """The domain appended to senders and recipients without one, such as `root`; empty: `hostname`."""
    aliases: dict[str, str] = msgspec.field(default_factory=dict)
    """Name without a domain -> the full address that gets its mail; `*` stands for all other names."""
    strict_syntax: bool = False
    """Refuse commands that RFC 5321 does not allow, even if they have one reading only."""

    spool_dir: Path = Path("spool")
    """The spool of this host: after loading, the directory `host` in `spoolDir`, if that is given."""
    host: str = ""
    """This host's name among the hosts that share `spoolDir`; empty: it is not shared."""
    min_free_space: Bytes = Bytes(64 * 2**20)
    """Free space on the spool's filesystem below which new mail gets 452 4.3.1."""
    max_message_size: Annotated[Bytes, msgspec.Meta(ge=1)] = Bytes(25 * 2**20)
    """The largest message as submitted (RFC 1870)."""
    max_recipients: Annotated[int, msgspec.Meta(ge=1, le=20_000)] = 1000
    """Recipients per message. RFC 5321 4.5.3.1.8 requires at least 100; the spool can store 20,000."""
    max_connections: Count = 4096
    """Concurrent connections to the receiver."""
    max_connections_per_peer: Count = 100
    """Concurrent connections from one address of another host."""
    max_queued: Limit = 0
    """Messages waiting in the spool above which new mail gets 452 4.3.1; 0: only `minFreeSpace` counts."""

    idempotency_window: Seconds = Seconds(86_400)
    """How long mail with a repeated Idempotency-Key is not queued again; 0: keys are ignored."""

    max_future_release: Seconds = Seconds(30 * 86_400)
    """How far ahead clients may schedule mail (FUTURERELEASE, RFC 4865); 0: it is not offered."""

    long_lines: LongLines = LongLines.PASS
    hide_client_address: bool = False
    """Leave the client's name and address out of Received."""
    rewrite_from: RewriteFrom = RewriteFrom.KEEP
    rewrite_from_address: str = ""
    """The address for `rewrite_from`; empty: `defaultUsername`."""
    redirect_all_to: str = ""
    """For staging: the address that gets all mail, except mail to `allowedRecipients`; X-Original-To has the
    original recipients."""
    allowed_recipients: tuple[Name, ...] = ()
    """For staging: addresses and domains that may get mail, others get 550 5.7.1; empty: all may."""

    routes: tuple[RouteRule, ...] = ()
    """Routing rules; for each recipient separately, the first rule that matches counts. Mail that matches no
    rule goes direct, then through the providers by priority."""
    direct_delivery: DirectDelivery = DirectDelivery()
    forward_smtp: bool = msgspec.field(default=False, name="forwardSMTP")
    """The forward route's master switch; if off, no provider is used."""
    forward_providers: tuple[Provider, ...] = ()
    """The providers as written; `providers` returns those that are used, in order."""
    forward_host: str = ""
    """With the four keys below, the only provider while `forwardProviders` is empty."""
    forward_port: Port = 587
    forward_username: str = ""
    forward_password: Secret = Secret("")
    forward_ssl: bool = msgspec.field(default=False, name="forwardSSL")
    domain_budgets: tuple[DomainBudget, ...] = ()
    """Sending budgets for recipient domains; the first that covers a domain counts."""
    tls_policies: tuple[TlsPolicy, ...] = ()
    """The TLS level of destinations for which it is not `may`; the first policy that matches counts."""
    batch_size: Count = 20
    """Recipients per transaction."""
    batch_delay: Milliseconds = Milliseconds(1000)
    """Pause between two batches of one message to one next hop."""
    retry: Retry = Retry()
    delay_warning: Seconds = Seconds(0)
    """Age at which the sender gets one notification that a recipient is delayed; 0: never."""
    bounce: str = BOUNCE_SENDER
    """Where notifications of failure go: `sender`, `off`, or an address; see `BOUNCE_SENDER`."""
    uncertain: UncertainPolicy = UncertainPolicy.RETRY
    sending: Sending = Sending()
    suppress_unknown: SuppressUnknown = SuppressUnknown()
    dns: Dns = Dns()
    dkim: Dkim = Dkim()

    rate_limits: RateLimits = RateLimits()
    security: Security = Security()
    archive_max_age: Some = Seconds(30 * 86_400)
    """How long copies are kept in `sent/`."""
    log_retention: Some = Seconds(30 * 86_400)
    """How long a day of the ledger is kept."""
    log_subjects: bool = True
    """Record Subject and Message-ID of each message in the ledger, so that they can be searched for."""
    log_format: LogFormat = LogFormat.LOGFMT
    """Format of standard error of the receiver, the runner and the monitor; `--log-format` overrides it."""
    enable_health_check: bool = True
    """Whether the monitor serves HTTP on loopback."""
    health_check_port: Port = 8025
    admin_token: Secret = Secret("")
    """The token that the monitor demands to show mail or to act; empty: one is generated, in the spool."""
    show_content: bool = False
    """The status page shows the content of messages, and it and `/admin/replay` send them to other addresses.

    Off by default: people and programs that only watch the queue may have the token, and with this it lets
    them read all mail.
    """
    alerts: Alerts = Alerts()
    on_event: OnEvent = OnEvent()
    """Delivery of events about mail to a webhook or a command."""

    @property
    def shared_dir(self) -> Path | None:
        """The directory that several hosts share, with the spool of each in it; None: it is not shared."""
        return self.spool_dir.parent if self.host else None

    @property
    def bind_address(self) -> str:
        """The address on which the receiver really listens: under `allowLocalOnly` only loopback."""
        if not self.security.allow_local_only:
            return self.smtp_host
        return loopback_address(self.smtp_host) or "127.0.0.1"

    @property
    def bounce_address(self) -> str:
        """The address that `bounce` names; empty: it is `sender` or `off`."""
        return "" if self.bounce in {BOUNCE_SENDER, BOUNCE_OFF} else self.bounce

    @property
    def auth_required(self) -> bool:
        """Whether clients must log in: if `requireAuth` is on or, as in the Go relay, if there is a login."""
        return self.security.require_auth or bool(self.default_username)

    @property
    def offered_tls(self) -> Offer:
        """STARTTLS at `smtpPort`.

        If listeners use the certificate and `smtpPort` is on loopback, STARTTLS is not offered there unless
        `smtpTls` says so: local applications would reject a certificate that is not for `localhost`, and
        their mail would be lost.
        """
        if self.smtp_tls is not None:
            return self.smtp_tls
        elsewhere = any(
            each.unix_socket is None and each.tls is not ListenerTls.NONE for each in self.listeners
        )
        return Offer.NONE if elsewhere and is_loopback(self.bind_address) else Offer.OFFERED

    @property
    def demanded_logins(self) -> tuple[Offer, ...]:
        """Whether clients must log in, at `smtpPort` first, then at each listener."""
        usual = Offer.REQUIRED if self.auth_required else Offer.OFFERED
        return (self.smtp_auth or usual, *(each.auth or usual for each in self.listeners))

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The forward route's providers in the order to try them; empty: that route is off."""
        return tuple(provider for equals in self.providers_by_priority.values() for provider in equals)

    @property
    def providers_by_priority(self) -> dict[int, tuple[Provider, ...]]:
        """As `providers`, grouped by priority."""
        return self._ranked if self.forward_smtp else {}

    @property
    def every_provider(self) -> tuple[Provider, ...]:
        """As `providers`, but also if the forward route is switched off."""
        return tuple(provider for equals in self._ranked.values() for provider in equals)

    def name_of(self, provider: Provider) -> str:
        """Return the unique name of a provider, whose label others may have as well: see `by_name`."""
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
