"""Check what direct delivery needs: a full host name, and a way out to port 25 of other servers."""

import random

from mailer.mail.finding import Finding, Grade
from mailer.mail.host_name import fault
from mailer.send.checks.provider import TIMEOUTS
from mailer.send.phase import Phase
from mailer.send.resolver import LookupFailed, NoSuchName, Resolver
from mailer.send.routes.mx import Rules, Undeliverable, addresses, exchangers
from mailer.send.smtp.client import Session
from mailer.send.smtp.hop import Hop
from mailer.send.trouble import HopTrouble


def check_hostname(hostname: str, key: str, *, grave: bool) -> Finding:
    """Check the name for EHLO: RFC 5321 4.1.4 asks for one that others can find in DNS.

    Args:
        hostname: the name.
        key: the configuration key that sets it.
        grave: whether a bad name is a problem, as in direct delivery, where all receivers judge it; a
            provider knows us by our login.
    """
    if why := fault(hostname):
        grade = Grade.PROBLEM if grave and not hostname.startswith("[") else Grade.WARNING
        todo = f"set {key} to the full name that this host has in DNS, such as mail.example.com"
        return Finding(hostname, "hostname", grade, why, todo)
    return Finding(hostname, "hostname", Grade.OK, "is a full name")


async def check_way_out(
    domain: str, port: int, rules: Rules, ehlo_domain: str, resolver: Resolver
) -> Finding:
    """Connect to a mail exchanger of one of our own domains, greet it, and quit.

    Other people's servers are not used for tests.

    Args:
        domain: one of our domains.
        port: `directDelivery.port`.
        rules: which of its addresses may be used.
        ehlo_domain: our name in EHLO.
        resolver: asks DNS.
    """
    about = f"port {port}"
    try:
        for host in await exchangers(resolver, domain, random.shuffle):
            usable, _ = await addresses(resolver, host, rules)
            if usable:
                return await _greet(about, _hop(host, usable[0], port, ehlo_domain))
    except LookupFailed as failed:
        found = f"the mail exchangers of {domain} could not be looked up: {failed}"
        return Finding(about, "outbound", Grade.UNKNOWN, found, "try again")
    except (Undeliverable, NoSuchName):
        return _not_tried(about, f"{domain} has no mail exchanger to try it with")
    return _not_tried(about, f"{domain} has no mail exchanger at a public address to try it with")


def _not_tried(about: str, why: str) -> Finding:
    todo = "send one mail to yourself elsewhere before you rely on it: many networks block that port"
    return Finding(about, "outbound", Grade.SKIPPED, why, todo)


def _hop(host: str, address: str, port: int, ehlo_domain: str) -> Hop:
    return Hop(name=host.strip("[]"), port=port, address=address, verify=False, ehlo_domain=ehlo_domain)


async def _greet(about: str, hop: Hop) -> Finding:
    try:
        session = await Session.open(hop, TIMEOUTS)
    except HopTrouble as trouble:
        if trouble.phase is Phase.CONNECT:
            todo = "most clouds block it: ask them to open it, or send through a provider"
            found = f"cannot connect to {trouble.hop}: {trouble.text}"
            return Finding(about, "outbound", Grade.PROBLEM, found, todo)
        found = f"the port is open, but {trouble.hop} says: {trouble.text}"
        todo = "read its reply: this host's address may have a bad reputation; look it up in blocklists"
        return Finding(about, "outbound", Grade.WARNING, found, todo)
    await session.close()
    return Finding(about, "outbound", Grade.OK, f"{session.label} answers ({session.tls or 'without TLS'})")
