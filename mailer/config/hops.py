"""Configuration of delivery: direct to MX hosts, via providers (smarthosts), budgets, TLS, concurrency."""

from enum import StrEnum
from typing import Annotated

import msgspec

from mailer.config.key_types import Count, Group, Limit, Name, Port, Seconds
from mailer.config.oauth import OAuth2
from mailer.config.receiving import RewriteFrom
from mailer.config.secrets import Secret
from mailer.mail.address import a_labels
from mailer.mail.budget import Allowance, Counted, WhenUsedUp

Share = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class IpVersion(StrEnum):
    """Which address family is used to connect to a mail exchanger."""

    ANY = "any"
    FOUR = "4"
    SIX = "6"


class DirectDelivery(Group, frozen=True, kw_only=True):
    """The direct route, to the mail exchangers of each recipient's domain."""

    enabled: bool = False
    ehlo_domain: str = ""
    """Our name in EHLO; empty: `hostname`."""
    insecure_skip_verify: bool = False
    """Accept any certificate where a policy demands a verified one. Opportunistic TLS never verifies."""
    retry_count: Count = 3
    """Attempts before the next route is tried; if there is none, attempts continue until `retry.maxAge`."""
    allow_private: bool = False
    """Also deliver to mail exchangers at loopback and private addresses."""
    port: Port = 25
    """The mail exchangers' port."""
    ip_version: IpVersion = IpVersion.ANY
    source_address: str = ""
    """The local address to connect from, which restricts connections to its address family; empty: the system
    chooses."""


class AuthMechanism(StrEnum):
    """The SASL mechanism for a password (RFC 4616, the obsolete LOGIN, RFC 2195)."""

    PLAIN = "plain"
    LOGIN = "login"
    CRAM_MD5 = "cram-md5"


class Api(StrEnum):
    """HTTP APIs of providers that accept raw messages; see `send/http/`."""

    GRAPH = "graph"
    """Microsoft Graph, `sendMail` in MIME format."""
    GMAIL = "gmail"
    """Gmail API, `messages.send` by upload."""
    MAILGUN = "mailgun"
    """Mailgun, `messages.mime`."""
    SES = "ses"
    """Amazon SES, version 2 of its API, `SendEmail` with raw content."""

    @property
    def by_header(self) -> bool:
        """Whether the API takes recipients from the message's To, Cc and Bcc, since it has no envelope."""
        return self in {Api.GRAPH, Api.GMAIL}


class Pace(Group, frozen=True, kw_only=True):
    """Limits per minute, hour and day for all runners of a spool together; 0: no limit."""

    max_per_minute: Limit | None = None
    """None: no limit, except that `sending.ratePerHop` limits each runner at a provider, which 0 lifts."""
    max_per_hour: Limit = 0
    max_per_day: Limit = 0
    warm_up: tuple[Count, ...] = ()
    """The limits of the first day, the second, and so on, counted from the first mail; then `maxPerDay`
    applies. For an IP address or account without a reputation yet."""
    budget_counts: Counted = Counted.RECIPIENTS
    """What the limits above count."""
    when_used_up: WhenUsedUp = WhenUsedUp.WAIT
    max_sessions: Count | None = None
    """Concurrent connections of all runners together; None: `sending.maxSessionsPerHop` for each runner."""

    @property
    def allowance(self) -> Allowance:
        """The limits as plain values; false if there is no limit."""
        return Allowance(
            self.max_per_minute or 0,
            self.max_per_hour,
            self.max_per_day,
            self.warm_up,
            self.budget_counts,
            self.when_used_up,
        )


class Provider(Pace, frozen=True, kw_only=True):
    """One provider of the forward route: a smarthost, or an HTTP API."""

    host: Name
    """The server. With `api`, the loader fills in the host of `apiUrl`."""
    port: Port = 587
    """The server's port. With `api`, the loader fills in the port of `apiUrl`."""
    api: Api | None = None
    """The HTTP API that mail is posted to; None: SMTP."""
    api_url: str = ""
    """The base URL of the API, without the documented path; empty: the provider's default."""
    region: str = ""
    """The region of Amazon Web Services, for `ses`."""
    username: str = ""
    """Empty: no AUTH. With `api`: the mailbox (`graph`, `gmail`), the sending domain (`mailgun`), or the
    access key's id (`ses`; empty: taken from the environment or the instance's role)."""
    password: Secret = Secret("")
    """For `mailgun`: the API key; for `ses`: the secret access key."""
    auth: AuthMechanism | OAuth2 | None = None
    """The AUTH mechanism; None: the first of these that the server offers, and a second one if that is
    refused. An object: log in with an access token instead of `password`."""
    ssl: bool = False
    """True: TLS from the first byte (RFC 8314). False: STARTTLS if it is offered. Without TLS, `password` is
    sent only if `host` is a loopback address or `localhost` as written, regardless of what DNS returns."""
    priority: int | None = None
    """Lower is tried first, ties in the order of the file; None: the position in the list, from 0."""
    weight: Share | None = None
    """Share of the mail among providers of equal priority, if one of them has a weight. Those without one
    then count as 1; 0 gets mail only if the others fail."""
    name: str = ""
    """The operator's name for it; empty: the host. See `label`."""
    insecure_skip_verify: bool = False
    """Accept any certificate."""
    source_address: str = ""
    """As `DirectDelivery.source_address`."""

    sender: str = ""
    """The envelope sender for mail through this provider, replacing the original: for accounts that may send
    as one address only. The provider reports failures to that address. Mail from `<>` keeps `<>`."""
    rewrite_from: RewriteFrom = RewriteFrom.KEEP
    """As `Config.rewrite_from`, for mail through this provider, with `sender` as the address."""
    dkim: bool = True
    """Whether to sign mail through this provider. Off for one that signs itself or changes signed parts."""
    bounce_from: str = ""
    """The envelope sender for mail from `<>`, mainly notifications, if the provider refuses `<>`. Such mail
    is marked as automatic, and no notification is sent if it fails. Empty: `<>`."""

    @property
    def label(self) -> str:
        """The provider's display name, which need not be unique: see `by_name`."""
        return self.name or self.host

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses by which a command may select this provider, besides its name; not always unique."""
        at = {self.host, f"{self.host}:{self.port}"}
        return frozenset(at | {f"{self.username}@{each}" for each in at if self.username})

    @property
    def oauth(self) -> OAuth2 | None:
        """The OAuth 2.0 settings; None: log in with a password, or not at all."""
        return self.auth if isinstance(self.auth, OAuth2) else None

    @property
    def account(self) -> str:
        """The key of its persistent state, because quotas and logins belong to an account."""
        return f"{self.host}:{self.port}" + (f" as {self.username}" if self.username else "")


class TlsLevel(StrEnum):
    """The TLS security that a connection needs before mail is sent over it."""

    NONE = "none"
    """Never use STARTTLS."""
    MAY = "may"
    """Opportunistic TLS: use it if it is offered and works, else send in clear (RFC 7435)."""
    ENCRYPT = "encrypt"
    """Require TLS, with any certificate; without it the mail is deferred."""
    VERIFY = "verify"
    """Require TLS with a certificate that is valid for the host, or for `TlsPolicy.verify_name`."""


class TlsPolicy(Group, frozen=True, kw_only=True):
    """One row of the table of TLS policies; the first row that matches a destination counts."""

    destination: Name
    """A recipient domain or a provider's host; `.example.net`: all subdomains; `*`: everything."""
    level: TlsLevel
    verify_name: str = ""
    """The name that the certificate must have; empty: the host's name, which for an MX comes from DNS."""


class Sending(Group, frozen=True, kw_only=True):
    """How much the runner does in parallel."""

    concurrency: Count = 20
    """Concurrent deliveries, not counting those that wait on an unresponsive destination."""
    max_sessions_per_hop: Count = 8
    """Connections to one next hop. Providers refuse more than about 10 to 50."""
    rate_per_hop: Limit = 0
    """Transactions per minute that one runner begins at one next hop; 0: no limit."""
    shutdown_grace: Seconds = Seconds(30)
    """How long a runner or receiver may take to finish messages in flight when it is stopped."""


def by_name(providers: tuple[Provider, ...]) -> dict[str, Provider]:
    """Give each provider a unique name: its label, and `LABEL #2` for the second with a label, and so on.

    Programs print these names, and commands accept them. Two mailboxes at one host often have no `name`.
    """
    named: dict[str, Provider] = {}
    labels = {each.label for each in providers}
    for each in providers:
        name, number = each.label, 1
        while name in named or (number > 1 and name in labels):
            number += 1
            name = f"{each.label} #{number}"
        named[name] = each
    return named


def find_providers(providers: tuple[Provider, ...], text: str) -> dict[str, Provider]:
    """Return, by unique name, the providers that an operator means: one by its name, else all by an address.

    An address is HOST, HOST:PORT, USERNAME@HOST or USERNAME@HOST:PORT.
    """
    named = by_name(providers)
    return {text: named[text]} if text in named else {n: p for n, p in named.items() if text in p.addresses}


def by_priority(providers: tuple[Provider, ...]) -> dict[int, tuple[Provider, ...]]:
    """Group by priority, lower first; a missing one is the position, and ties keep their order."""
    ranks: dict[int, list[Provider]] = {}
    for position, provider in enumerate(providers):
        ranks.setdefault(position if provider.priority is None else provider.priority, []).append(provider)
    return {rank: tuple(ranks[rank]) for rank in sorted(ranks)}


class DomainBudget(Pace, frozen=True, kw_only=True):
    """A budget for mail to recipients in some domains, on any route."""

    domains: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    """The domains that share the budget; `.example.net`: all its subdomains."""

    @property
    def label(self) -> str:
        return ", ".join(self.domains)

    @property
    def record(self) -> str:
        """The key of its persistent state, like `Provider.account`."""
        return "domains " + " ".join(sorted(domain.lower() for domain in self.domains))

    def covers(self, domain: str) -> bool:
        """Return whether a recipient domain is one of these, or a subdomain of one with a leading dot."""
        plain = a_labels(domain)
        return any(
            plain.endswith("." + a_labels(one[1:])) if one.startswith(".") else plain == a_labels(one)
            for one in self.domains
        )
