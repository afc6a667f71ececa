"""Check that the SPF policies of our domains let our mail pass, whether sent directly or by a provider."""

import asyncio
from dataclasses import dataclass

from mailer.mail.finding import Finding, Grade
from mailer.send.checks import name_trouble
from mailer.send.checks.spf import IpAddress, Lookup, Verdict, evaluate
from mailer.send.checks.spf_record import Result, parse, policies
from mailer.send.resolver import LookupFailed, NoSuchName

_MAX_INCLUDED = 30
"""The most names to follow; an SPF evaluation follows ten."""

# Domains of submission servers, and the names that an SPF policy has to include for them.
_INCLUDES = {
    "amazonaws.com": "amazonses.com",
    "brevo.com": "spf.brevo.com",
    "fastmail.com": "spf.messagingengine.com",
    "gmail.com": "_spf.google.com",
    "gmail.googleapis.com": "_spf.google.com",
    "graph.microsoft.com": "spf.protection.outlook.com",
    "mailgun.net": "mailgun.org",
    "mailjet.com": "spf.mailjet.com",
    "mandrillapp.com": "spf.mandrillapp.com",
    "office365.com": "spf.protection.outlook.com",
    "postmarkapp.com": "spf.mtasv.net",
    "sendinblue.com": "spf.sendinblue.com",
    "sparkpostmail.com": "sparkpostmail.com",
}

_GRADES = {
    Result.PASS: Grade.OK,
    Result.NEUTRAL: Grade.WARNING,
    Result.NONE: Grade.WARNING,
    Result.SOFTFAIL: Grade.PROBLEM,
    Result.FAIL: Grade.PROBLEM,
    Result.PERMERROR: Grade.PROBLEM,
    Result.TEMPERROR: Grade.UNKNOWN,
}
"""For mail that comes directly from us. A softfail is a problem, since its mail goes to the spam folder."""


@dataclass(frozen=True, slots=True)
class Smarthost:
    """A provider's server, to be found in an SPF policy."""

    host: str
    """The server to submit to; the provider may send from other hosts."""
    addresses: tuple[IpAddress, ...]


async def check_egress(domain: str, address: IpAddress, lookup: Lookup, helo: str) -> Finding:
    """Evaluate a domain's policy for mail that comes directly from this host."""
    verdict = await evaluate(address, domain, lookup, helo=helo)
    grade, found = _GRADES[verdict.result], f"{address}: {verdict.result} ({verdict.why})"
    return Finding(domain, "spf", grade, found, _todo(verdict, f"ip{address.version}:{address}"))


def _todo(verdict: Verdict, term: str) -> str:
    match verdict.result:
        case Result.PASS:
            return ""
        case Result.PERMERROR:
            return "correct the record; until then receivers treat it as an error"
        case Result.TEMPERROR:
            return name_trouble.todo(verdict.why)
        case Result.NONE:
            return f'publish a TXT record: "v=spf1 {term} -all"'
    return f'put "{term}" into the record, in front of its "all"'


async def check_smarthost(domain: str, smarthost: Smarthost, lookup: Lookup) -> Finding:
    """Check that a domain's policy covers a provider, by one of its addresses or by an include.

    If it does not, that is only a warning, since the addresses that a provider sends from are not known.
    """
    include = next((v for suffix, v in _INCLUDES.items() if _below(smarthost.host, suffix)), "")
    asked = f"include:{include}" if include else "include:WHAT-THE-PROVIDER-SAYS"
    for verdict in await asyncio.gather(*(evaluate(each, domain, lookup) for each in smarthost.addresses)):
        if verdict.result is Result.NONE:
            todo = f'publish a TXT record: "v=spf1 {asked} ~all"'
            return Finding(domain, "spf", Grade.WARNING, f"{smarthost.host}: {verdict.why}", todo)
        if verdict.result in {Result.PERMERROR, Result.TEMPERROR}:
            return Finding(domain, "spf", _GRADES[verdict.result], verdict.why, _todo(verdict, ""))
        if verdict.result is Result.PASS:
            return Finding(domain, "spf", Grade.OK, f"{smarthost.host}: pass ({verdict.why})")
    try:
        included = await _included(domain, lookup)
    except LookupFailed as failed:
        return Finding(
            domain, "spf", Grade.UNKNOWN, f"could not be looked up: {failed}", name_trouble.todo(failed)
        )
    if known := [name for name in included if belongs(name, smarthost.host)]:
        return Finding(domain, "spf", Grade.OK, f"{smarthost.host}: covered by include:{known[0]}")
    found = f"{smarthost.host}: neither its addresses nor an include of it are in the policy"
    return Finding(domain, "spf", Grade.WARNING, found, f'put "{asked}" into the record')


def belongs(included: str, host: str) -> bool:
    """Tell whether an included name seems to belong to the same organisation as a host."""
    for suffix, include in _INCLUDES.items():
        if _below(host, suffix) and _below(included, include):
            return True
    return _organisation(included) == _organisation(host)


def _organisation(name: str) -> str:
    """Return the last two labels, which is a guess: the Public Suffix List would be needed to be certain."""
    return ".".join(name.lower().rstrip(".").split(".")[-2:])


def _below(name: str, suffix: str) -> bool:
    return f".{name.lower()}".endswith(f".{suffix}")


async def _included(domain: str, lookup: Lookup) -> list[str]:
    """Return the names that a policy includes or redirects to, and those of these policies; nearest first."""
    names = [domain]
    for name in names:
        try:
            records = policies(await lookup.texts(name))
            policy = parse(records[0]) if records else None
        except (NoSuchName, ValueError):
            continue
        if policy is not None and len(names) < _MAX_INCLUDED:
            further = [each.target for each in policy.directives if each.mechanism == "include"]
            further += [policy.redirect] if policy.redirect else []
            names += [each for each in further if "%" not in each and each not in names]
    return names[1:]
