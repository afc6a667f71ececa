"""The network checks of `mailer doctor`: providers, direct delivery and sender domains, in parallel."""

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from mailer.cli.name_server import name_servers
from mailer.config.hops import Provider
from mailer.config.model import Config, MissingKey
from mailer.config.own_name import own_name
from mailer.config.problem import ConfigError
from mailer.config.receiving import RewriteFrom
from mailer.config.users import read_users
from mailer.mail.finding import Finding, Grade
from mailer.send.checks import direct as direct_check
from mailer.send.checks import egress, spf_check
from mailer.send.checks import provider as provider_check
from mailer.send.checks.domain import check_domain, check_key
from mailer.send.checks.spf import IpAddress
from mailer.send.dkim.author import ascii_domain
from mailer.send.dkim.key_files import KeyFile
from mailer.send.dkim.signer import Signer
from mailer.send.resolver import DnsResolver, LookupFailed
from mailer.send.routes.directions import keeps_mail
from mailer.send.routes.hops import hop_of, rules_of, tokens_of
from mailer.send.smtp.hop import Hop
from mailer.spool.directory import Spool
from mailer.spool.state import identity, provider_state
from mailer.spool.state.provider_state import ProviderState, States

LONGEST = 60.0
"""Seconds that one group of checks may take. A server that answers at all needs one or two."""
_MOST_DOMAINS = 30
"""The most domains to check."""

Findings = Awaitable[list[Finding]]


@dataclass(frozen=True, slots=True)
class Section:
    """A group of checks that run together."""

    title: str
    look: Callable[[], Findings]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line for the network checks."""

    domains: tuple[str, ...] = ()
    egress: tuple[IpAddress, ...] = ()
    resolver: str | None = None


async def bounded(section: Section) -> list[Finding]:
    """Run a section's checks; report a section that takes longer than `LONGEST` as unknown."""
    try:
        async with asyncio.timeout(LONGEST):
            return await section.look()
    except TimeoutError:
        words = f"took longer than {LONGEST:.0f} seconds"
        return [Finding(section.title, "time", Grade.UNKNOWN, words, "try again")]


def sections(config: Config, asked: Asked) -> Iterator[Section]:
    """Yield the checks in the order of the report, without running them."""
    if keeps_mail(config) and not asked.domains:
        words = "no mail leaves this host: it is kept in spool/local"
        yield _known("sending", Finding("routes", "routes", Grade.SKIPPED, words))
        return
    own = own_name(config)
    ourselves = _identity(config)
    hops = [replace(hop_of(provider, config, own), ourselves=ourselves) for provider in config.providers]
    if config.providers and not config.direct_delivery.enabled:
        yield _known("our name", direct_check.check_hostname(own, "hostname", grave=False))
    states = _provider_states(config)
    for provider, hop in zip(config.providers, hops, strict=True):
        state = states.get(provider.account, ProviderState())
        yield Section(
            f"provider {config.name_of(provider)}", partial(_provider, config, provider, hop, state)
        )
    try:
        resolver = name_servers(config, asked.resolver)
    except (LookupFailed, ValueError) as error:
        todo = "see /etc/resolv.conf and dns.nameservers"
        yield _known("DNS", Finding("DNS", "resolver", Grade.PROBLEM, str(error), todo))
        return
    hostname = config.direct_delivery.ehlo_domain or own
    doctor = _Doctor(config, hostname, asked.egress, tuple(hops), resolver)
    domains = asked.domains or sender_domains(config)
    if config.direct_delivery.enabled:
        yield Section("direct delivery", partial(doctor.direct, domains))
    for domain in domains[:_MOST_DOMAINS]:
        yield Section(f"domain {domain}", partial(doctor.domain, domain))
    if (finding := unsigned(config)) and not keeps_mail(config):
        yield _known("signing", finding)
    if len(domains) > _MOST_DOMAINS or not domains:
        words = f"{len(domains[_MOST_DOMAINS:])} more" if domains else "none is known from the configuration"
        yield _known("domains", Finding("domains", "domain", Grade.SKIPPED, words, "name them: --domain D"))


def _name_key(config: Config) -> str:
    return "directDelivery.ehloDomain" if config.direct_delivery.ehlo_domain else "hostname"


def _known(title: str, finding: Finding) -> Section:
    """Return a section with a finding that is known already."""

    async def found() -> list[Finding]:
        return [finding]

    return Section(title, found)


def _identity(config: Config) -> str:
    try:
        with Spool.open_unchecked(config.spool_dir) as spool:
            return identity.known(spool)
    except OSError:
        return ""


def _provider_states(config: Config) -> States:
    """Read the providers' states as runners left them; empty if the spool cannot be read."""
    try:
        with Spool.open_unchecked(config.spool_dir) as spool:
            return provider_state.read(spool)
    except OSError:
        return {}


async def _provider(config: Config, provider: Provider, hop: Hop, state: ProviderState) -> list[Finding]:
    now, name = time.time(), config.name_of(provider)
    looked_up, addresses = await provider_check.look_up(hop)
    found = await _login(config, provider, hop) if addresses else []
    return [looked_up, *found, provider_check.standing(hop, name, state, datetime.fromtimestamp(now, UTC))]


async def _login(config: Config, provider: Provider, hop: Hop) -> list[Finding]:
    """Log in as a run would: with the access token in the spool, or with a new one that is stored there."""
    if provider.oauth is None:
        return await provider_check.check_provider(hop, config.name_of(provider), time.time())
    try:
        with Spool.open_unchecked(config.spool_dir) as spool:
            hop = replace(hop, tokens=tokens_of(provider, spool, time.time))
            return await provider_check.check_provider(hop, config.name_of(provider), time.time())
    except OSError as error:
        words = f"its access token is kept in the spool, which cannot be used: {error.strerror}"
        return [Finding(str(hop), "login", Grade.SKIPPED, words)]


def sender_domains(config: Config) -> tuple[str, ...]:
    """Return the domains that mail is sent as, according to the configuration and the users file."""
    addresses = [config.default_username, config.rewrite_from_address, *_senders_of_users(config)]
    named = [key.domain for key in config.dkim.signing_keys] if config.dkim.enabled else []
    named += [address.rpartition("@")[2] for address in addresses if "." in address.rpartition("@")[2]]
    return tuple(dict.fromkeys(filter(None, map(_ascii, named))))


def _senders_of_users(config: Config) -> list[str]:
    """Return the users' sender addresses and domains; the file checks report an unreadable users file."""
    try:
        users = read_users(config.users_file).values()
    except (OSError, ConfigError):
        return []
    return [pattern for user in users for pattern in user.allowed_senders if pattern != "*"]


def _ascii(domain: str) -> str:
    try:
        return ascii_domain(domain)
    except ValueError:
        return ""  # `mailer config check` reports it.


@dataclass(frozen=True, slots=True)
class _Doctor:
    """The checks of direct delivery and of domains, with the state that they share."""

    config: Config
    hostname: str
    named_egress: tuple[IpAddress, ...]
    hops: tuple[Hop, ...]
    resolver: DnsResolver

    async def direct(self, domains: Sequence[str]) -> list[Finding]:
        """Check the host's name, its addresses and their names, and outgoing connections."""
        addresses = self._egress()
        findings = [
            direct_check.check_hostname(self.hostname, _name_key(self.config), grave=True),
            egress.describe(addresses, named=bool(self.named_egress)),
        ]
        checks = [egress.check_names(each, self.hostname, self.resolver) for each in self._visible(addresses)]
        terms = self.config.direct_delivery
        if domains:
            way_out = direct_check.check_way_out(
                domains[0], terms.port, rules_of(terms), self.hostname, self.resolver
            )
            checks.append(way_out)
        return [*findings, *await asyncio.gather(*checks)]

    async def domain(self, domain: str) -> list[Finding]:
        """Check what receivers look up in DNS about mail from a domain."""
        try:
            signing = self._signing(domain)
        except ValueError as error:
            why = f"{error}; see the configuration above"
            return [Finding(domain, "dkim", Grade.PROBLEM, f"nothing can be signed: {why}")]
        found = await asyncio.gather(
            self._published(domain, signing),
            self._spf(domain),
            check_domain(domain, self._signed_by(domain, signing), self.resolver),
        )
        return [finding for each in found for finding in each]

    def _signing(self, domain: str) -> tuple[str, ...]:
        dkim = self.config.dkim
        return Signer(dkim, time.time).signing_domains(domain) if dkim.enabled else ()

    def _signed_by(self, domain: str, signing: Sequence[str]) -> Sequence[str]:
        """Return the d= domains of the signatures, assuming that a provider signs for the domain itself."""
        nobody = self.config.direct_delivery.enabled and not self.config.dkim.enabled
        return signing or (() if nobody else (domain,))

    async def _published(self, domain: str, signing: Sequence[str]) -> list[Finding]:
        """Compare the keys that sign a domain's mail with what is published for them."""
        keys = [key for key in self.config.dkim.signing_keys if _ascii(key.domain) in signing]
        found: list[Finding] = []
        for key in keys:
            assert key.private_key_path is not None  # Mail is signed only with a key.
            file = KeyFile(key.private_key_path)
            found += await check_key(_ascii(key.domain), _ascii(key.selector), file, self.resolver)
        # Findings about the key alone were reported with the files.
        return [each for each in found if each.what != "key"] or [
            self._unsigned(domain, configured=bool(keys))
        ]

    def _unsigned(self, domain: str, *, configured: bool) -> Finding:
        if configured:
            return Finding(domain, "dkim", Grade.SKIPPED, "its key cannot be used; see the files above")
        if self.config.dkim.enabled:
            words, todo = "no key signs its mail", f"mailer dkim keygen --domain {domain}"
        elif self.config.direct_delivery.enabled:
            words = "dkim.enabled is off: mail leaves unsigned, and large receivers want a signature"
            todo = f"mailer dkim keygen --domain {domain}, publish the record, and turn dkim.enabled on"
        else:
            words = "dkim.enabled is off: the provider signs, or mail is unsigned"
            return Finding(domain, "dkim", Grade.SKIPPED, words)
        return Finding(domain, "dkim", Grade.WARNING, words, todo)

    async def _spf(self, domain: str) -> list[Finding]:
        known = await asyncio.gather(*map(_smarthost, self.hops))
        # A relay on this host sends from this host's addresses.
        here = [each for each in known if each.addresses and all(one.is_loopback for one in each.addresses)]
        beyond = [each for each in known if each not in here]
        checks = [spf_check.check_smarthost(domain, each, self.resolver) for each in beyond]
        # Mail that leaves only through a provider comes from the provider's addresses, not from this host's.
        if self.config.direct_delivery.enabled or here or (self.named_egress and not beyond):
            sources = self._visible(self._egress())
            checks += [spf_check.check_egress(domain, each, self.resolver, self.hostname) for each in sources]
        if checks:
            return list(await asyncio.gather(*checks))
        words = "not evaluated: this host cannot know which address others see"
        return [Finding(domain, "spf", Grade.SKIPPED, words, "name it with --egress IP")]

    def _visible(self, addresses: Sequence[IpAddress]) -> Sequence[IpAddress]:
        """Return the addresses that other hosts see: those from --egress, or else the public ones."""
        return self.named_egress or egress.public(addresses)

    def _egress(self) -> tuple[IpAddress, ...]:
        if self.named_egress:
            return self.named_egress
        direct = self.config.direct_delivery
        if direct.source_address:
            try:
                return (ipaddress.ip_address(direct.source_address),)
            except ValueError:
                return ()  # Reported with the configuration.
        rules = rules_of(direct)
        wanted = [version for version, on in ((4, rules.ipv4), (6, rules.ipv6)) if on]
        return tuple(filter(None, map(egress.chosen_by_the_kernel, wanted)))


async def _smarthost(hop: Hop) -> spf_check.Smarthost:
    _, addresses = await provider_check.look_up(hop)
    return spf_check.Smarthost(
        hop.name, tuple(ipaddress.ip_address(each.partition("%")[0]) for each in addresses)
    )


def unsigned(config: Config) -> Finding | None:
    """Check how mail is signed whose From field has no domain, such as cron's; None if DKIM is off."""
    dkim = config.dkim
    if not dkim.enabled:
        return None
    if not dkim.signing_keys:
        found = "dkim.enabled is on and there is no key: all mail waits for one until it expires"
        todo = "set dkim.domain, and type: mailer dkim keygen --domain DOMAIN; or turn dkim.enabled off"
        return _signing(Grade.PROBLEM, found, todo)
    if not dkim.keys:
        found = f"signed with the one key, of {dkim.domain}; without any From field it leaves unsigned"
        return _signing(Grade.OK, found)
    if config.rewrite_from is not RewriteFrom.KEEP:
        return _signing(Grade.OK, "rewriteFrom gives it an address, and so a key")
    if dkim.on_missing_key is MissingKey.SEND:
        return _signing(Grade.OK, "leaves unsigned (dkim.onMissingKey)")
    found = "has no key: it waits until it expires, and is then reported as undelivered"
    todo = 'set rewriteFrom to "replace" and rewriteFromAddress, or dkim.onMissingKey to "send"'
    return _signing(Grade.WARNING, found, todo)


def _signing(grade: Grade, found: str, todo: str = "") -> Finding:
    return Finding("mail without a domain in From", "dkim", grade, found, todo)
