"""Explain for `mailer route` the runner's decision for each recipient, and the terms of each hop."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from mailer.cli.obstacles import current_obstacles
from mailer.cli.providers.listing import Row, domains, health_words, listing, used_words
from mailer.cli.route.subject import Subject
from mailer.config.hops import Provider
from mailer.config.model import Config, Dkim
from mailer.config.receiving import RewriteFrom
from mailer.mail.clock import rfc3339
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.send.presentation import AS_ACCEPTED, Presentation
from mailer.send.routes.directions import Directions, Own, Target, Way, keeps_mail, unreachable
from mailer.send.routes.hops import held_in_doubt, hop_of, leads_to, target_name
from mailer.send.smtp.hop import Hop, StartTls
from mailer.send.staging import Staging
from mailer.send.suppressed import Suppressed
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.layout import LOCAL
from mailer.spool.message_state import Standing
from mailer.spool.view.obstacles import next_attempt

if TYPE_CHECKING:
    from mailer.send.dkim.signer import Signer

_TAGS = compile_late(rb"\bd=([^;]+);\s+s=([^;]+);")


class HopDescription(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A hop, and the form in which the mail is sent there."""

    name: str
    """The name in rules: of a provider, `direct` or `local`."""
    kind: str
    """`provider`, `direct`, `local`; or `server` for a hop that is known only from the journal."""
    relay: str = ""
    """The name in the journal, without the IP address; empty for `direct`."""
    username: str = ""
    weight: int = 0
    """Share of the mail among hops of the same priority; 0 for all if they are tried in this order."""
    health: str = ""
    tls: str = ""
    sender: str = ""
    """The envelope sender for this hop; empty for the null sender `<>`."""
    rewrite_from: str = "keep"
    dkim: tuple[str, ...] = ()
    """Domain and selector of each signature, as `example.com mail`."""
    exchangers: tuple[str, ...] = ()
    trouble: str = ""
    """Why the mail could not be delivered through this hop, as far as can be seen without a connection."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The delivery that would be tried for one recipient."""

    address: str
    rule: str
    """The rule that matched, such as `routes[2]`; empty if none did."""
    conditions: dict[str, object]
    """The conditions of that rule."""
    reason: str
    """Why the mail would not be sent; empty if it would be."""
    hops: tuple[HopDescription, ...]
    """The hops in the order in which they are tried."""
    budget: str
    """The use of the domain's budget, and when some is free again; empty if there is none."""
    next: str
    """When the mail is due, as in the journal; empty if it is due now, or held until an operator acts."""
    next_attempt: str
    """When the mail would be tried, in words, with the obstacles."""


class Explainer:
    """Explains routing with one configuration and the present state of the spool."""

    def __init__(self, config: Config, spool: Spool, now: float) -> None:
        """Read the state of the spool at `now`, in seconds since the epoch."""
        self._config = config
        self._now = now
        self._directions = Directions(config)
        self._obstacles = current_obstacles(config, spool, now)
        rows = listing(config, spool, datetime.fromtimestamp(now, UTC))
        self._rows = {(row.host, row.port, row.username): row for row in rows}
        self._used = {row.domains: used_words(row) for row in domains(config, spool)}
        self._suppressed = Suppressed(config, spool, lambda: now)
        self._keeps = keeps_mail(config)
        signs = config.dkim.enabled and not self._keeps
        self._signer = _signer(config.dkim, now) if signs else None

    def explain(self, subject: Subject) -> list[Explanation]:
        """Explain where a mail would go, for each recipient that is still to be tried."""
        staging = None if self._keeps else Staging.of(self._config)
        objection = staging.objection(subject.envelope) if staging else ""
        told = [self._recipient(subject, standing, objection) for standing in subject.standings]
        if objection or subject.held or not (doubt := held_in_doubt(subject.standings, self._config)):
            return told
        return [msgspec.structs.replace(one, hops=(), reason=f"it would be held: {doubt}") for one in told]

    def _recipient(self, subject: Subject, standing: Standing, objection: str) -> Explanation:
        way = self._directions.of(subject.mail, standing.address)
        known = self._is_known(standing)
        hops: tuple[HopDescription, ...]
        if not subject.notifies and (listed := self._suppressed.outcomes([standing.address])):
            doubtful = standing.status is Status.UNCERTAIN
            fate = f"it stays in doubt at {standing.hop}" if doubtful else "it would bounce"
            hops, reason = (), objection or f"{fate}: {listed[0].reply}"
        elif known:
            hops = (HopDescription(name=standing.hop, kind="server", relay=standing.hop),)
            reason = objection
        elif standing.status is Status.UNCERTAIN and not standing.let_go:
            hops, reason = (), objection or f"it would be held: {unreachable(standing.hop).hold}"
        else:
            shares = [share for group in way.groups for share in group]
            hops = tuple(self._hop(*share, subject, standing.address) for share in shares)
            reason = objection or way.hold or way.waits
        expected = next_attempt(standing.next, self._obstacles)
        after = "after `mailer spool release`"
        return Explanation(
            address=standing.address,
            rule="" if known else way.rule,
            conditions=self._conditions(way),
            reason=subject.held or reason,
            hops=hops,
            budget=self._budget(standing.address),
            next=rfc3339(standing.next) if standing.next is not None and not subject.held else "",
            next_attempt=f"next {after}: it is held" if subject.held else expected.words(self._now),
        )

    def _is_known(self, standing: Standing) -> bool:
        """Return whether a recipient is uncertain at a hop that a route leads to: then no other is tried."""
        if standing.status is not Status.UNCERTAIN:
            return False
        return any(leads_to(target, standing.hop, self._config) for target in self._directions.targets)

    def _conditions(self, way: Way) -> dict[str, object]:
        rules = dict(zip(self._directions.ways, self._config.routes, strict=False))
        return rules[way].written if way in rules else {}

    def _budget(self, address: str) -> str:
        domain = address.rpartition("@")[2]
        limits = (each for each in self._config.domain_budgets if each.allowance and each.covers(domain))
        first = next(limits, None)
        return f"mail for {first.label}: {self._used[first.label]}" if first else ""

    def _hop(self, target: Target, weight: int, subject: Subject, address: str) -> HopDescription:
        match target:
            case Own.LOCAL:
                return HopDescription(
                    name=target.value, kind=LOCAL, relay=LOCAL, sender=subject.envelope.sender
                )
            case Own.DIRECT:
                return self._direct(subject, address)
            case Provider():
                return self._provider(target, weight, subject)

    def _provider(self, provider: Provider, weight: int, subject: Subject) -> HopDescription:
        shown = Presentation.to(provider)
        row = self._rows.get((provider.host, provider.port, provider.username))
        keys, trouble = self._keys(subject, shown)
        return HopDescription(
            name=self._config.name_of(provider),
            kind="provider",
            relay=target_name(provider, self._config),
            username=provider.username,
            weight=weight,
            health=_health(row),
            tls=tls_words(hop_of(provider, self._config)),
            sender=shown.envelope(subject.envelope).sender,
            rewrite_from=shown.rewrite_from.value,
            dkim=keys,
            trouble=trouble,
        )

    def _direct(self, subject: Subject, address: str) -> HopDescription:
        import asyncio  # noqa: PLC0415 - for direct delivery only

        from mailer.cli.route.direct import onward  # noqa: PLC0415 - as above; it imports dnspython

        hop, hosts, trouble = asyncio.run(onward(self._config, address))
        keys, unsigned = self._keys(subject, AS_ACCEPTED)
        return HopDescription(
            name=Own.DIRECT.value,
            kind=Own.DIRECT.value,
            tls=tls_words(hop),
            sender=subject.envelope.sender,
            dkim=keys,
            exchangers=hosts,
            trouble=unsigned or trouble,
        )

    def _keys(self, subject: Subject, shown: Presentation) -> tuple[tuple[str, ...], str]:
        """Sign the header to find the keys that would sign; return them, or why the mail would wait."""
        if self._signer is None or not shown.dkim:
            return (), ""
        from mailer.send.dkim.signer import NoKey, SigningError  # noqa: PLC0415 - loaded by `_signer`

        head = subject.header
        if shown.edits(subject.envelope):
            head = shown.header(head, subject.envelope)
        try:
            signatures = self._signer.sign(_Header(head))
        except NoKey as error:
            return (), "" if subject.notifies else error.reason
        except SigningError as error:
            return (), error.reason
        return tuple(b" ".join(tags).decode() for tags in _TAGS.findall(signatures)), ""


def _signer(dkim: Dkim, now: float) -> "Signer":
    from mailer.send.dkim.signer import Signer  # noqa: PLC0415 - most hosts leave DKIM to their provider

    return Signer(dkim, lambda: now)


class _Header:
    """A `Source` for the signer: a header, as a message without a body."""

    def __init__(self, head: bytes) -> None:
        self._message = head + b"\r\n"
        self.size = len(self._message)

    def read(self, offset: int, length: int) -> bytes:
        return self._message[offset : offset + length]


def _health(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{health_words(row)}; used: {used_words(row)}" if row.budget else health_words(row)


def tls_words(hop: Hop) -> str:
    """Describe the TLS of connections to a hop, and whether its certificate must be valid."""
    if hop.api:
        if hop.api_url.startswith("http://"):
            return f"{hop.api.value} over HTTP, in clear"  # Allowed to this host only.
        # `Exchange` always verifies, also for a hop without a username, whose keys come from a role, say.
        return f"{hop.api.value} over HTTPS; the certificate must be valid for {hop.name}"
    if hop.opportunistic:
        return "STARTTLS when it is offered, with any certificate, and in clear when it fails"
    if hop.implicit_tls:
        how = "TLS from the first byte"
    elif hop.starttls is StartTls.NEVER and not (hop.username and not hop.on_this_host):
        return "in clear"
    elif hop.on_this_host and hop.starttls is not StartTls.REQUIRED:
        how = "STARTTLS when it is offered"
    else:
        how = "STARTTLS, and nothing in clear"
    name = hop.verify_name or hop.name
    return f"{how}; " + (f"the certificate must be valid for {name}" if hop.verify else "any certificate")


def as_text(told: Explanation) -> str:
    """Format an explanation as lines of text."""
    lines = [f"{words.address(told.address)}: {_rule(told)}"]
    if told.reason:
        lines.append(f"    not sent: {told.reason}")
    for at, hop in enumerate(told.hops, start=1):
        lines += [f"    {at}. {_title(hop)}", *(f"       {line}" for line in _details(hop))]
    if told.budget:
        lines.append(f"    {told.budget}")
    lines.append(f"    {told.next_attempt}")
    return "".join(f"{printable(line, 2000)}\n" for line in lines)


def _rule(told: Explanation) -> str:
    if told.hops and told.hops[0].kind == "server":
        return "its last reply was lost, so it is tried again there and nowhere else"
    if not told.rule:
        return "no rule matches"
    wanted = msgspec.json.encode(told.conditions).decode() if told.conditions else "all mail"
    return f"{told.rule} matches ({wanted})"


def _title(hop: HopDescription) -> str:
    login = f" as {hop.username}" if hop.username else ""
    share = f", weight {hop.weight}" if hop.weight else ""
    health = f": {hop.health}" if hop.health else ""
    where = f" ({hop.relay}{login})" if hop.relay and hop.relay != hop.name else ""
    return f"{hop.name}{where}{share}{health}"


def _details(hop: HopDescription) -> list[str]:
    if hop.kind == "server":
        return []
    details = [f"to {', '.join(hop.exchangers)}"] if hop.exchangers else []
    details += [hop.tls] if hop.tls else []
    author = (
        "" if hop.rewrite_from == RewriteFrom.KEEP else f"; From becomes {hop.sender} ({hop.rewrite_from})"
    )
    details.append(f"sender {words.address(hop.sender)}{author}")
    signed = [f"d={domain} s={selector}" for domain, _, selector in (key.partition(" ") for key in hop.dkim)]
    details.append(f"signed by {', '.join(signed)}" if signed else "not signed")
    return [*details, *([f"trouble: {hop.trouble}"] if hop.trouble else [])]
