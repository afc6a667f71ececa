"""Evaluate DMARC as receivers do (RFC 9989): a domain's policy, and which signatures align with it.

Both are found by walking up the DNS tree, without a Public Suffix List: the records themselves mark where an
organization begins (`psd`). No library is used, since the one for this brings an HTTP client, a list of
suffixes and its own resolver, which would not use `dns.nameservers`.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mailer.mail.finding import Finding, Grade
from mailer.mail.reply import printable

Texts = Callable[[str], Awaitable[list[str] | None]]
"""Returns a name's TXT records; None: the name does not exist. Raises LookupFailed."""

_MAX_LABELS = 8
"""RFC 9989 4.10: a longer name is cut to seven labels after its first query, so that a walk takes at most
eight."""
# RFC 9989 4.7: `v` comes first, and its value is case-sensitive.
_VERSION = re.compile(r"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_POLICIES = frozenset({"none", "quarantine", "reject"})


@dataclass(frozen=True, slots=True)
class Record:
    """A policy record and the domain that publishes it."""

    domain: str
    tags: Mapping[str, str]

    @property
    def boundary(self) -> str:
        """The value of `psd`: `y`, `n`, or `u`, which any other value means too."""
        said = self.tags.get("psd", "u").lower()
        return said if said in {"y", "n"} else "u"


@dataclass(frozen=True, slots=True)
class Walk:
    """The records found by walking up from one domain."""

    start: str
    records: tuple[Record, ...]
    """The records found, from the domain itself upwards."""
    ambiguous: tuple[str, ...]
    """Domains with several records; receivers discard all of them."""

    @property
    def organization(self) -> str:
        """The organizational domain (RFC 9989 4.10.2); the domain itself if no record is found."""
        for record in self.records:
            if record.boundary == "n":
                return record.domain
            if record.boundary == "y" and record.domain != self.start:
                below = len(record.domain.split(".")) + 1
                return ".".join(self.start.split(".")[-below:])
        return self.records[-1].domain if self.records else self.start

    @property
    def policy(self) -> Record | None:
        """The record that applies: the domain's own, its organization's, or its public suffix's (4.10.1)."""
        by_domain = {record.domain: record for record in self.records}
        suffix = next((record for record in self.records if record.boundary == "y"), None)
        return by_domain.get(self.start) or by_domain.get(self.organization) or suffix


async def walk(domain: str, texts: Texts) -> Walk:
    """Look up the policy records of a domain and of its parent domains, in at most eight queries.

    Raises:
        LookupFailed: a name server gave no usable answer.
    """
    records: list[Record] = []
    ambiguous: list[str] = []
    for target in _targets(domain):
        found = [text for text in await texts(f"_dmarc.{target}") or () if _VERSION.match(text)]
        if len(found) > 1:
            ambiguous.append(target)
        elif found:
            records.append(Record(target, tags_of(found[0])))
            if records[-1].boundary != "u":
                break
    return Walk(domain, tuple(records), tuple(ambiguous))


def tags_of(record: str) -> dict[str, str]:
    """Parse the tag list (RFC 6376 3.2) of a DKIM or DMARC record; parts that are not tags are ignored."""
    pairs = (part.partition("=") for part in record.split(";"))
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}


async def check_dmarc(domain: str, signing_domains: Sequence[str], texts: Texts) -> Finding:
    """Report which policy applies to mail from a domain, and whether one of its signatures aligns.

    Args:
        domain: the From field's domain, in lower case, as A-labels.
        signing_domains: d= of the signatures that its mail will have.
        texts: asks DNS.

    Raises:
        LookupFailed: a name server gave no usable answer.
    """
    walked = await walk(domain, texts)
    if walked.ambiguous:
        where, found = f"_dmarc.{walked.ambiguous[0]}", "several DMARC records: receivers use none"
        return Finding(where, "dmarc", Grade.WARNING, found, "leave one of them")
    record = walked.policy
    if record is None:
        todo = 'publish a TXT record there, to begin with "v=DMARC1; p=none"'
        return Finding(f"_dmarc.{domain}", "dmarc", Grade.WARNING, "no DMARC record", todo)
    name = f"_dmarc.{record.domain}"
    tag, policy = _applied(record, domain, exists=await texts(domain) is not None)
    if policy not in _POLICIES:
        found = (
            f"{tag}={printable(policy, 20)} is not a policy: receivers take it for none, or ignore the record"
        )
        todo = f'write {tag}=none, {tag}=quarantine or {tag}=reject; p comes first: "v=DMARC1; p=none"'
        return Finding(name, "dmarc", Grade.WARNING, found, todo)
    strict = record.tags.get("adkim", "r").lower() == "s"
    aligned = await _aligned(walked, signing_domains, texts, strict=strict)
    if not aligned:
        signed = f"signed by {', '.join(signing_domains)}" if signing_domains else "not signed"
        found = f"{tag}={policy}; mail from {domain} is {signed}, which does not align"
        if signing_domains and not strict:
            found += f": the organizational domain of {domain} is {walked.organization}"
        return Finding(name, "dmarc", Grade.WARNING, found, f"add a key for {domain} to dkim.keys")
    manner = "strict" if strict else "relaxed"
    found = f"{tag}={policy}; the signature of {aligned} aligns with {domain} ({manner})"
    return Finding(name, "dmarc", Grade.OK, found)


def _targets(domain: str) -> Iterator[str]:
    yield domain
    labels = domain.split(".")
    labels = labels[1:] if len(labels) < _MAX_LABELS else labels[1 - _MAX_LABELS :]
    while labels:
        yield ".".join(labels)
        labels = labels[1:]


def _applied(record: Record, domain: str, *, exists: bool) -> tuple[str, str]:
    """Return the tag that applies to the domain, and its value: `np` and `sp` are for subdomains (4.7)."""
    wanted = ["p"] if record.domain == domain else ["sp", "p"] if exists else ["np", "sp", "p"]
    tag = next((tag for tag in wanted if tag in record.tags), "p")
    return tag, record.tags.get(tag, "").lower()


async def _aligned(walked: Walk, signing_domains: Sequence[str], texts: Texts, *, strict: bool) -> str:
    """Return the first signing domain that aligns with the author's (4.4.1); empty: none.

    It must be the same domain, or in relaxed mode have the same organizational domain.
    """
    if walked.start in signing_domains:
        return walked.start
    for signing in () if strict else signing_domains:
        if (await walk(signing, texts)).organization == walked.organization:
            return signing
    return ""
