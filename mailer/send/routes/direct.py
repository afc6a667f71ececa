"""The direct route: delivery to the mail exchangers of the recipients' domain (RFC 5321 5.1)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs

from mailer.config.hops import TlsLevel, TlsPolicy
from mailer.ground.lazy_task import in_task
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.destination_status import DestinationStatus
from mailer.send.outgoing import Outgoing
from mailer.send.phase import Phase
from mailer.send.presentation import AS_ACCEPTED
from mailer.send.resolver import LookupFailed, NoSuchName, Resolver
from mailer.send.routes.mx import MAX_HOSTS, PATIENCE, Rules, Shuffle, Undeliverable, addresses, exchangers
from mailer.send.routes.route import OnCommit, OnTrouble
from mailer.send.routes.tls_demand import STARTTLS, demand_of
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.pool import Pool
from mailer.send.trouble import HopTrouble, may_be_about_a_recipient, without_account

if TYPE_CHECKING:
    from mailer.send.budgets import BudgetShare
    from mailer.spool.state.slots import Slots

Sessions = Callable[[str], "tuple[Slots | None, int]"]
"""Returns, for a domain, the counter of the sessions of all runners, and their limit; 0 for the default."""


def _unlimited(_: str) -> "tuple[Slots | None, int]":
    return None, 0


@dataclass(frozen=True, slots=True)
class DirectSettings:
    """The settings for sessions with mail exchangers."""

    port: int
    rules: Rules
    ehlo_domain: str
    batch_size: int
    batch_delay: float
    attempts: int
    source_address: str = ""
    per_minute: int = 0
    tls_policies: tuple[TlsPolicy, ...] = ()
    insecure_skip_verify: bool = False
    sessions: Sessions = _unlimited

    def may_name(self, hop: str) -> bool:
        """Tell whether a hop may be an exchanger, by its port and the lack of a login; see `_in_doubt`."""
        return "@" not in hop and hop.endswith(f":{self.port}")


def domain_of(address: str, settings: DirectSettings) -> str:
    """Return the part after the last @, in lower case; a bare `postmaster` is local (RFC 5321 4.1.1.3)."""
    return (address.rpartition("@")[2] if "@" in address else settings.ehlo_domain).lower()


def hop_to(settings: DirectSettings, host: str, address: str, demand: TlsPolicy) -> Hop:
    """Return an exchanger as a next hop.

    Args:
        settings: the settings for sessions.
        host: the exchanger's name.
        address: where to connect; empty if not known yet.
        demand: the TLS policy of the recipients' domain.
    """
    return Hop(
        name=address if host.startswith("[") else host,
        port=settings.port,
        address=address,
        starttls=STARTTLS[demand.level],
        # Opportunistic TLS does not verify, since the alternative would be cleartext (RFC 7435 1.2).
        verify=demand.level is TlsLevel.VERIFY and not settings.insecure_skip_verify,
        verify_name=demand.verify_name,
        ehlo_domain=settings.ehlo_domain,
        source_address=settings.source_address,
        per_minute=settings.per_minute,
    )


class DirectRoute:
    """Delivers to the recipients' own servers; one group of recipients per domain."""

    name = "direct"
    presentation = AS_ACCEPTED
    retries_unclear_refusals = False
    holds_second_doubt = False
    budget: "BudgetShare | None" = None

    def __init__(
        self,
        settings: DirectSettings,
        pool: Pool,
        resolver: Resolver,
        shuffle: Shuffle,
        destinations: DestinationStatus,
    ) -> None:
        self._settings = settings
        self._destinations = destinations
        self._pool = pool
        self._resolver = resolver
        self._shuffle = shuffle
        self.batch_size = settings.batch_size
        self.batch_delay = settings.batch_delay
        self.attempts = settings.attempts

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        """Divide recipients by domain; see `Route`."""
        domains: dict[str, list[Recipient]] = {}
        for recipient in recipients:
            domains.setdefault(domain_of(recipient.address, self._settings), []).append(recipient)
        return list(domains.values())

    async def deliver(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit, on_trouble: OnTrouble
    ) -> list[Outcome]:
        """Send one transaction to the first exchanger that works; see `Route`.

        All recipients must have the same domain.
        """
        await in_task()
        with self._destinations.towards(domain_of(recipients[0].address, self._settings)):
            return await self._exchange(outgoing, recipients, on_commit, on_trouble)

    async def _exchange(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit, on_trouble: OnTrouble
    ) -> list[Outcome]:
        domain = domain_of(recipients[0].address, self._settings)
        try:
            hosts = await exchangers(self._resolver, domain, self._shuffle)
        except Undeliverable as final:
            return [Outcome(r.address, Status.BOUNCED, domain, final.reply) for r in recipients]
        except LookupFailed as failed:
            raise HopTrouble(domain, Phase.LOOKUP, f"MX lookup for {domain}: {failed}") from failed
        tried: list[Outcome] | HopTrouble | None = None
        broke: HopTrouble | None = None
        wanted_hosts = _in_doubt(outgoing, recipients, domain, hosts)
        demand = demand_of(self._settings.tls_policies, domain)
        async for hop in self._hops(wanted_hosts, domain, demand):
            if tried:
                _tell(tried, recipients, on_trouble)
            tried = await self._try(hop, outgoing, recipients, on_commit)
            if isinstance(tried, HopTrouble) and may_be_about_a_recipient(tried):
                broke = tried
            # Once an outcome is final for any recipient, it is returned to be recorded before anything else.
            if isinstance(tried, list) and not all(map(_of_the_exchanger, tried)):
                return tried
        if isinstance(tried, list):
            return tried
        if broke and tried and broke is not tried:
            _tell(tried, recipients, on_trouble)
            raise broke  # It says more than that another address is out of reach.
        wanted = self._settings.rules.wanted
        raise tried or HopTrouble(domain, Phase.LOOKUP, f"no mail exchanger of {domain} has {wanted}")

    def leads_to(self, hop: str) -> bool:
        return self._settings.may_name(hop)

    async def _try(
        self,
        hop: Hop | HopTrouble,
        outgoing: Outgoing,
        recipients: Sequence[Recipient],
        on_commit: OnCommit,
    ) -> list[Outcome] | HopTrouble:
        if isinstance(hop, HopTrouble):
            return hop
        try:
            return await self._send(hop, outgoing, recipients, on_commit)
        except HopTrouble as trouble:
            return trouble

    async def _hops(
        self, hosts: Sequence[str], domain: str, demand: TlsPolicy
    ) -> AsyncIterator[Hop | HopTrouble]:
        """Yield a hop for each address of the exchangers, or why one has none, until `PATIENCE` is over."""
        now = asyncio.get_running_loop().time
        until = now() + PATIENCE
        for host in hosts:
            try:
                usable, forbidden = await addresses(self._resolver, host, self._settings.rules)
            except (NoSuchName, LookupFailed) as error:
                yield HopTrouble(host, Phase.LOOKUP, f"address lookup for {host}: {error}")
                continue
            for address in usable:
                if now() > until:
                    return
                hop = hop_to(self._settings, host, address, demand)
                slots, most = self._settings.sessions(domain)
                yield replace(hop, slots=slots, max_sessions=most) if slots else hop
            if forbidden and not usable:
                where = f"{host}[{forbidden[0]}]"
                text = f"{forbidden[0]} is not a public address, and directDelivery.allowPrivate is off"
                yield HopTrouble(where, Phase.CONNECT, text)

    async def _send(
        self, hop: Hop, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit
    ) -> list[Outcome]:
        # No letter is given, so no transaction is begun behind the dot of another message. If a server ended
        # the connection because of that, the other message would become uncertain. A provider is worth that
        # risk; the unknown servers of many domains are not.
        message_id = outgoing.claim.entry.block.id
        async with self._pool.session(hop, outgoing.on_wait, message_id) as session:
            outcomes = await session.transact(
                outgoing, recipients, lambda accepted: on_commit(accepted, session.label)
            )
        return [without_account(outcome) for outcome in outcomes]


def _tell(
    tried: Sequence[Outcome] | HopTrouble, recipients: Sequence[Recipient], on_trouble: OnTrouble
) -> None:
    """Report why one exchanger failed, before the next one is tried."""
    if isinstance(tried, HopTrouble):
        on_trouble(tried.hop, tried.text, tried.scope, recipients)
        return
    alike: dict[Outcome, list[Recipient]] = {}
    for recipient, outcome in zip(recipients, tried, strict=True):
        alike.setdefault(structs.replace(outcome, address=""), []).append(recipient)
    for outcome, some in alike.items():
        on_trouble(outcome.hop, outcome.reply, outcome.scope, some)


def _of_the_exchanger(outcome: Outcome) -> bool:
    """Tell whether an outcome is due to the exchanger, such as a full disk, so that another may be tried."""
    return outcome.status is Status.DEFERRED and outcome.scope is Scope.HOST


def _in_doubt(
    outgoing: Outgoing, recipients: Sequence[Recipient], domain: str, hosts: list[str]
) -> list[str]:
    """Return the exchangers to try; for uncertain recipients, only those that may have taken the mail.

    Raises:
        HopTrouble: none of those is an exchanger of the domain (any more); a provider never was.
    """
    asked = {recipient.address for recipient in recipients}
    doubtful = [
        standing
        for standing in outgoing.claim.entry.state.standings
        if standing.status is Status.UNCERTAIN and standing.address in asked
    ]
    doubted = {standing.hop.partition("[")[0] for standing in doubtful}
    if known := [host for host in hosts if host in doubted]:
        return known
    # An address literal is its own exchanger.
    if all(standing.let_go for standing in doubtful) or domain.startswith("["):
        return hosts[:MAX_HOSTS]
    text = (
        f"{doubtful[0].hop} may have delivered it, and is not an exchanger of {domain} now; `mailer spool "
        "hold ID`, then `mailer spool retry ID` send it to the present exchangers, perhaps a second time"
    )
    raise HopTrouble(domain, Phase.LOOKUP, text)
