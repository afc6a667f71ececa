"""A next hop: where to connect, and on what terms. Whoever finds the hop (provider, MX) fills it in."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from mailer.config.hops import Api
from mailer.mail.host_name import is_loopback
from mailer.mail.reply import printable
from mailer.send.smtp.sasl import Secret, Tokens

if TYPE_CHECKING:
    from mailer.spool.state.slots import Slots


class StartTls(StrEnum):
    """When to ask for STARTTLS (RFC 3207) on a session that began in clear."""

    NEVER = "never"
    WHEN_OFFERED = "when offered"
    """Opportunistic; with credentials it still means encrypted or not at all, save where `Hop.here`."""
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Hop:
    """One next hop. Hashable: the pool keeps sessions by it."""

    name: str
    """The host name: the operator knows it by this, and a certificate must say it."""
    port: int
    address: str = ""
    """Connect here; empty: look `name` up. An MX host's addresses are tried one hop each."""
    api: Api | None = None
    """Mail is posted to this interface at `api_url`, see `send/http/`; None: SMTP."""
    api_url: str = ""
    region: str = ""
    """Where requests are signed for, as `Provider.region`."""
    implicit_tls: bool = False
    starttls: StartTls = StartTls.WHEN_OFFERED
    verify: bool = True
    """Demand a valid certificate for `name`, or for `verify_name`."""
    verify_name: str = ""
    username: str = ""
    """Empty: do not log in."""
    password: Secret | None = field(default=None, repr=False, compare=False)
    tokens: Tokens | None = field(default=None, repr=False, compare=False)
    """Log in with an access token from here; `password` is not used then."""
    auth: str = ""
    """The AUTH mechanism to use, in upper case; empty: those that are offered."""
    ehlo_domain: str = "localhost"
    ourselves: str = ""
    """The word by which our own receiver is known (`spool.identity`), which is sent nothing; empty: none."""
    source_address: str = ""
    """Connect from here; empty: as the system chooses."""
    max_sessions: int = 0
    """Sessions at once; 0: what the pool allows."""
    slots: "Slots | None" = field(default=None, repr=False)
    """What counts the sessions of all runners; None: nobody does."""
    per_minute: int = 0
    """Transactions that may begin in a minute; 0: no limit."""
    shared: bool = False
    """Another login is used at the same name and port: only with its own is this hop named unmistakably."""

    def __hash__(self) -> int:
        # Not of all fields: it is looked up several times for each message.
        return hash((self.name, self.port, self.address))

    def __str__(self) -> str:
        return self.at(self.address)

    def at(self, address: str) -> str:
        """Name the hop as Postfix's `relay=` does, with an address: `smtp.example.com[192.0.2.1]:587`.

        One that is `shared` is named with its login: `USERNAME@smtp.example.com[192.0.2.1]:587`.
        """
        login = f"{self.login}@" if self.shared else ""
        known = f"[{address}]" if address not in {"", self.name} else ""
        return f"{login}{self.name}{known}:{self.port}"

    @property
    def here(self) -> bool:
        """The operator wrote a loopback address, or `localhost`: the hop was meant to be on this machine.

        Only what was written counts, since an answer of DNS is a stranger's. `localhost` is not asked of DNS
        (RFC 6761 6.3: /etc/hosts has it); where a resolver does ask, the address that was connected to must
        be loopback as well.
        """
        return is_loopback(self.name)

    @property
    def opportunistic(self) -> bool:
        """TLS when it works, whatever the certificate, and in clear when not (RFC 7435).

        Never with a login: credentials are not sent in clear, nor to whoever shows any certificate.
        """
        return self.starttls is StartTls.WHEN_OFFERED and not self.implicit_tls and not self.username

    @property
    def login(self) -> str:
        """The username, as a line can have it."""
        return printable(self.username, 200)

    def is_named(self, hop: str) -> bool:
        """Tell whether an outcome names this hop, at whatever address it was then: see `at`.

        A hop without a login was the only one at its name and port then.
        """
        login, at, server = hop.rpartition("@")
        name, _, port = server.rpartition(":")
        same = (name.partition("[")[0], port) == (self.name, str(self.port))
        return same and (not at or login == self.login)
