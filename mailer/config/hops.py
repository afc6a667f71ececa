"""The parts of the model that say where mail goes, and on what terms: exchangers, providers, TLS, pace."""

from enum import StrEnum
from typing import Annotated

import msgspec

from mailer.config.kinds import Count, Group, Limit, Name, Port
from mailer.config.oauth import OAuth2
from mailer.config.pace import Pace
from mailer.config.receiving import RewriteFrom
from mailer.config.secrets import Secret
from mailer.config.units import Seconds

Share = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class IpVersion(StrEnum):
    """Which addresses of a mail exchanger are used."""

    ANY = "any"
    FOUR = "4"
    SIX = "6"


class DirectDelivery(Group, frozen=True, kw_only=True):
    """The direct route: to the mail exchangers of each recipient's domain."""

    enabled: bool = False
    ehlo_domain: str = ""
    """What we call ourselves in EHLO; empty: `hostname`."""
    insecure_skip_verify: bool = False
    """Accept any certificate where a policy demands a verified one. Opportunistic TLS never verifies."""
    retry_count: Count = 3
    """Attempts before the next route is tried; without one the schedule goes on until `retry.maxAge`."""
    allow_private: bool = False
    """Deliver to mail exchangers at loopback and private addresses."""
    port: Port = 25
    """The mail exchangers' port."""
    ip_version: IpVersion = IpVersion.ANY
    source_address: str = ""
    """Connect from this address of ours, and therefore to addresses of its family alone; empty: the
    system's choice."""


class AuthMechanism(StrEnum):
    """How a password is shown to a provider (RFC 4616, the LOGIN of old, RFC 2195)."""

    PLAIN = "plain"
    LOGIN = "login"
    CRAM_MD5 = "cram-md5"


class Api(StrEnum):
    """Interfaces over HTTP that take a message's own bytes; see `send/http/`."""

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
        """The message's own To, Cc and Bcc say who gets it: the interface knows no envelope."""
        return self in {Api.GRAPH, Api.GMAIL}


class Provider(Pace, frozen=True, kw_only=True):
    """One smarthost of the forward route, or one interface over HTTP."""

    host: Name
    """With `api`: of `apiUrl`, which the loader fills in."""
    port: Port = 587
    """As `host`."""
    api: Api | None = None
    """Mail is posted to this interface; none: SMTP."""
    api_url: str = ""
    """Where it is, without a path as the provider documents it; empty: the provider's usual one."""
    region: str = ""
    """Of Amazon Web Services, for `ses`."""
    username: str = ""
    """Empty: no AUTH. With `api`: the mailbox (`graph`, `gmail`), the sending domain (`mailgun`), or the
    access key's id (`ses`; empty: that of the environment, or of the instance's role)."""
    password: Secret = Secret("")
    """For `mailgun`: the API key; for `ses`: the secret access key."""
    auth: AuthMechanism | OAuth2 | None = None
    """The AUTH mechanism; none: the first of these that it offers, and a second one when that is refused. An
    object: with an access token instead of `password`."""
    ssl: bool = False
    """True: TLS from the first byte (RFC 8314). False: STARTTLS when it is offered; without TLS, `password`
    is sent only where `host` is written as a loopback address or `localhost`, whatever DNS says of a name."""
    priority: int | None = None
    """Lower is tried first, ties in the order of the file; none: the position in the list, from 0."""
    weight: Share | None = None
    """Share of the mail among providers of equal priority, once one of them has a weight; those without one
    then count 1, and 0 gets mail only when the others fail."""
    name: str = ""
    """What the operator calls it; empty: the host. See `label`."""
    insecure_skip_verify: bool = False
    """Accept any certificate."""
    source_address: str = ""
    """As `DirectDelivery.source_address`."""

    sender: str = ""
    """The envelope sender of mail through it, in place of the mail's own: for an account that may send as one
    address only. What it then cannot deliver it reports to that address. Mail from `<>` keeps `<>`."""
    rewrite_from: RewriteFrom = RewriteFrom.KEEP
    """As `Config.rewrite_from`, for mail through it, with `sender` as the address."""
    dkim: bool = True
    """Mail through it gets our signatures. Off for one that signs itself, or changes what was signed."""
    bounce_from: str = ""
    """The envelope sender of mail from `<>`, notifications above all, through one that refuses `<>`. Such
    mail is marked as automatic, and its failure is told to nobody. Empty: `<>`."""

    @property
    def label(self) -> str:
        """What it is called; others may be called so, too: see `by_name`."""
        return self.name or self.host

    @property
    def addresses(self) -> frozenset[str]:
        """What it may be named by, alone or with others, beside its name."""
        at = {self.host, f"{self.host}:{self.port}"}
        return frozenset(at | {f"{self.username}@{each}" for each in at if self.username})

    @property
    def oauth(self) -> OAuth2 | None:
        """How it is logged in to with a token; None: with a password, or not at all."""
        return self.auth if isinstance(self.auth, OAuth2) else None

    @property
    def account(self) -> str:
        """What its state is kept by: its quota and its login are those of an account."""
        return f"{self.host}:{self.port}" + (f" as {self.username}" if self.username else "")


class TlsLevel(StrEnum):
    """What is demanded of a connection before mail goes over it."""

    NONE = "none"
    """STARTTLS is not asked for."""
    MAY = "may"
    """TLS when it is offered and works, and in clear when not (RFC 7435)."""
    ENCRYPT = "encrypt"
    """TLS, whatever the certificate; without it the mail waits."""
    VERIFY = "verify"
    """TLS with a certificate that is valid for the host, or for `TlsPolicy.verify_name`."""


class TlsPolicy(Group, frozen=True, kw_only=True):
    """One row of the table of TLS policies: the first that matches a destination counts."""

    destination: Name
    """A recipient domain or a provider's host; `.example.net`: all domains below; `*`: everything."""
    level: TlsLevel
    verify_name: str = ""
    """What the certificate must bear; empty: the host's own name, which for an MX is what DNS says."""


class Sending(Group, frozen=True, kw_only=True):
    """How much the runner does at once."""

    concurrency: Count = 20
    """Messages in flight, beside those that wait for a destination that does not answer."""
    max_sessions_per_hop: Count = 8
    """Connections to one next hop. Providers refuse more than some 10 to 50."""
    rate_per_hop: Limit = 0
    """Transactions that one runner begins in a minute at one next hop; 0: no limit."""
    shutdown_grace: Seconds = Seconds(30)
    """How long a runner or receiver that is to stop may finish what is in flight."""


def by_name(providers: tuple[Provider, ...]) -> dict[str, Provider]:
    """Name each provider by its label, the second one of a label `LABEL #2`, and so on, in their order.

    Programs print these names, and commands take them: two mailboxes at one host often have no `name`.
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


def called(providers: tuple[Provider, ...], text: str) -> dict[str, Provider]:
    """Return by name which providers an operator means: one by its name as above, else all by an address.

    An address is HOST, HOST:PORT, USERNAME@HOST or USERNAME@HOST:PORT.
    """
    named = by_name(providers)
    return {text: named[text]} if text in named else {n: p for n, p in named.items() if text in p.addresses}


def by_priority(providers: tuple[Provider, ...]) -> dict[int, tuple[Provider, ...]]:
    """Sort by priority, lower first, a missing one being the position; equals keep their order."""
    ranks: dict[int, list[Provider]] = {}
    for position, provider in enumerate(providers):
        ranks.setdefault(position if provider.priority is None else provider.priority, []).append(provider)
    return {rank: tuple(ranks[rank]) for rank in sorted(ranks)}
