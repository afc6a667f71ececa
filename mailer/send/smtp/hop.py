"""A next hop: where to connect, and how. The code that finds the hop (provider, MX) fills it in."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from mailer.config.hops import Api
from mailer.mail.host_name import is_loopback
from mailer.mail.reply import printable

if TYPE_CHECKING:
    from mailer.send.smtp.sasl import Secret, Tokens
    from mailer.spool.state.slots import Slots


class StartTls(StrEnum):
    """When to ask for STARTTLS (RFC 3207) on a session that began in clear."""

    NEVER = "never"
    WHEN_OFFERED = "when offered"
    """Opportunistic; but credentials are only sent encrypted, except where `Hop.on_this_host`."""
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Hop:
    """One next hop. Hashable, since the pool keeps its sessions by hop."""

    name: str
    """The host name, which the operator knows it by and which its certificate must name."""
    port: int
    address: str = ""
    """The address to connect to; empty: look `name` up. Each address of an MX host is a hop."""
    api: Api | None = None
    """The HTTP interface at `api_url` to post mail to, see `send/http/`; None: SMTP."""
    api_url: str = ""
    region: str = ""
    """The region that requests are signed for, as in `Provider.region`."""
    implicit_tls: bool = False
    starttls: StartTls = StartTls.WHEN_OFFERED
    verify: bool = True
    """Require a valid certificate for `verify_name` if it is set, else for `name`."""
    verify_name: str = ""
    username: str = ""
    """Empty: do not log in."""
    password: "Secret | None" = field(default=None, repr=False, compare=False)
    tokens: "Tokens | None" = field(default=None, repr=False, compare=False)
    """Source of access tokens to log in with; `password` is not used then."""
    auth: str = ""
    """The AUTH mechanism to use, in upper case; empty: any that is offered."""
    ehlo_domain: str = "localhost"
    ourselves: str = ""
    """The word in the EHLO reply that identifies our own receiver (`spool.identity`), to avoid a mail loop;
    empty: do not check."""
    source_address: str = ""
    """The local address to connect from; empty: as the system chooses."""
    max_sessions: int = 0
    """The most concurrent sessions; 0: as many as the pool allows."""
    slots: "Slots | None" = field(default=None, repr=False)
    """The slots that limit the sessions of all runners together; None: no such limit."""
    per_minute: int = 0
    """Transactions that may begin in a minute; 0: no limit."""
    shared: bool = False
    """Whether another login is configured for the same name and port; outcomes must then name the login."""

    def __hash__(self) -> int:
        # Of three fields only, to be fast: hops are looked up several times for each message.
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
    def on_this_host(self) -> bool:
        """Whether the hop is on this machine: the operator configured a loopback address or `localhost`.

        Only the configured name counts, since DNS answers are not trusted. `localhost` is not resolved
        through DNS (RFC 6761 6.3: /etc/hosts has it). A resolver may ask DNS all the same, so callers also
        require that the connected address is loopback.
        """
        return is_loopback(self.name)

    @property
    def opportunistic(self) -> bool:
        """Whether to use TLS if it works, with any certificate, and to send in clear if not (RFC 7435).

        Never with a login: credentials are not sent in clear, nor to a server with an unverified certificate.
        """
        return self.starttls is StartTls.WHEN_OFFERED and not self.implicit_tls and not self.username

    @property
    def login(self) -> str:
        """The username, escaped and shortened for log lines."""
        return printable(self.username, 200)

    def is_named(self, hop: str) -> bool:
        """Tell whether an outcome's hop, as `at` writes it, is this one; its address is ignored.

        An outcome without a login matches, since the hop was the only one at its name and port at that time.
        """
        login, at, server = hop.rpartition("@")
        name, _, port = server.rpartition(":")
        same = (name.partition("[")[0], port) == (self.name, str(self.port))
        return same and (not at or login == self.login)
