"""Check what receivers find in DNS about a sending domain: DKIM key, SPF, DMARC and MX.

Nothing is sent and nothing is changed; all DNS queries go through the caller's `Lookup`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from mailer.mail.finding import Finding, Grade
from mailer.mail.reply import printable
from mailer.send.checks import name_trouble
from mailer.send.checks.dmarc import check_dmarc, tags_of
from mailer.send.checks.spf_record import policies
from mailer.send.dkim.key_files import KeyFile, KeyTrouble
from mailer.send.resolver import LookupFailed, NoSuchName


class Lookup(Protocol):
    """Asks DNS; both raise NoSuchName and LookupFailed."""

    async def texts(self, name: str) -> list[str]: ...

    async def mail_exchangers(self, domain: str) -> list[tuple[int, str]]: ...


async def check_key(domain: str, selector: str, file: KeyFile, lookup: Lookup) -> list[Finding]:
    """Compare a private key with its published record."""
    name, where = f"{selector}._domainkey.{domain}", str(file.path)
    try:
        key = file.key()
    except KeyTrouble as trouble:
        todo = f"restore the key, or make one: mailer dkim keygen --domain {domain} --selector {selector}"
        return [Finding(where, "key", Grade.PROBLEM, str(trouble), todo)]
    kind = f"{key.algorithm.partition('-')[0]}, {key.bits} bits"
    if key.algorithm == "rsa-sha256" and key.bits < 2048:
        todo = f"RFC 8301 3.2 asks for 2048 bits: mailer dkim rotate --domain {domain}"
        able = Finding(where, "key", Grade.WARNING, f"{kind}, can sign, but is weak", todo)
    else:
        able = Finding(where, "key", Grade.OK, f"{kind}, can sign")

    async def compare() -> Finding:
        return _compare(name, await _texts(lookup, name), key.record)

    return [able, await _asked(name, "dkim", compare)]


async def check_domain(domain: str, signing_domains: Sequence[str], lookup: Lookup) -> list[Finding]:
    """Check SPF, DMARC and MX of a domain that is used in From.

    Args:
        domain: in lower case, as A-labels.
        signing_domains: d= of the signatures that its mail will have.
        lookup: asks DNS.
    """

    async def spf() -> Finding:
        return _spf(domain, await _texts(lookup, domain))

    async def dmarc() -> Finding:
        return await check_dmarc(domain, signing_domains, partial(_texts_if_any, lookup))

    async def mx() -> Finding:
        try:
            return _mx(domain, await lookup.mail_exchangers(domain))
        except NoSuchName:
            return _mx(domain, [])

    found = await asyncio.gather(
        _asked(domain, "spf", spf), _asked(f"_dmarc.{domain}", "dmarc", dmarc), _asked(domain, "mx", mx)
    )
    return list(found)


async def _asked(name: str, what: str, ask: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        return await ask()
    except LookupFailed as error:
        return Finding(
            name, what, Grade.UNKNOWN, f"could not be looked up: {error}", name_trouble.todo(error)
        )


async def _texts(lookup: Lookup, name: str) -> list[str]:
    return await _texts_if_any(lookup, name) or []


async def _texts_if_any(lookup: Lookup, name: str) -> list[str] | None:
    try:
        return await lookup.texts(name)
    except NoSuchName:
        return None


def _compare(name: str, records: Sequence[str], wanted: str) -> Finding:
    ours, tags = tags_of(wanted), tags_of(records[0]) if records else {}
    published = "".join(tags.get("p", "").split())
    faults = (
        (not records, "no TXT record"),
        (len(records) > 1, f"{len(records)} TXT records, and receivers take any of them (RFC 6376 3.6.2.2)"),
        ("p" not in tags, "a TXT record that is not a DKIM key"),
        (not published, "the key is revoked: p= is empty"),
        (published != ours["p"], "another key than ours is published"),
        (tags.get("v", "DKIM1") != "DKIM1", "the right key, but v= is not DKIM1"),
        (tags.get("k", "rsa") != ours["k"], f"the right key, but k= is not {ours['k']}"),
    )
    if fault := next((words for wrong, words in faults if wrong), None):
        return Finding(name, "dkim", Grade.PROBLEM, fault, f"publish this and no other TXT record: {wanted}")
    if "y" in tags.get("t", "").split(":"):
        found = "matches our private key, but is marked as a test (t=y), so receivers may ignore it"
        return Finding(name, "dkim", Grade.WARNING, found, f"publish without it: {wanted}")
    return Finding(name, "dkim", Grade.OK, "matches our private key")


def _spf(domain: str, records: Sequence[str]) -> Finding:
    found_policies = policies(records)
    if not found_policies:
        todo = 'publish a TXT record there that names who sends for it, such as "v=spf1 mx ~all"'
        return Finding(domain, "spf", Grade.WARNING, "no SPF record", todo)
    if len(found_policies) > 1:
        found = f"{len(found_policies)} SPF records, which receivers treat as an error (RFC 7208 4.5)"
        return Finding(domain, "spf", Grade.WARNING, found, "merge them into one")
    policy = printable(found_policies[0], 300)
    if re.search(r"(?:^|\s)\+?all(?:\s|$)", policy):
        found = f'"{policy}" allows any host to send as {domain}'
        return Finding(domain, "spf", Grade.WARNING, found, 'end it with "~all" or "-all"')
    return Finding(domain, "spf", Grade.OK, f'"{policy}"')


def _mx(domain: str, exchangers: Sequence[tuple[int, str]]) -> Finding:
    if not exchangers:
        found = "no MX record: bounces and replies go to the domain's own address, if anywhere"
        return Finding(domain, "mx", Grade.WARNING, found, "publish one if the domain is to receive mail")
    if [host for _, host in exchangers] == [""]:
        found = "a null MX: the domain takes no mail, so bounces and replies to it are lost"
        return Finding(domain, "mx", Grade.WARNING, found, "send as a domain that takes mail")
    hosts = ", ".join(printable(host) for _, host in sorted(exchangers))
    return Finding(domain, "mx", Grade.OK, hosts)
