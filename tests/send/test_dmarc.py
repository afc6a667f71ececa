"""Which DMARC policy holds and whose signatures align: the tree walk of RFC 9989, with a real name server."""

import asyncio
from collections.abc import Iterator, Mapping

import pytest
from testbed.name_server import NameServer, txt

from mailer.mail.finding import Finding, Grade
from mailer.send.checks.domain import check_domain
from mailer.send.resolver import DnsResolver

DEEP = "a.b.c.d.e.f.g.h.example.com"


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer({}) as running:
        yield running


def judged(
    server: NameServer, records: Mapping[str, str], domain: str, signing: str, *, exists: bool = True
) -> Finding:
    """What doctor says of mail from a domain with one signature, given the records at `_dmarc.NAME`."""
    server.zone = {(f"_dmarc.{name}", "TXT"): [txt(f"v=DMARC1; {text}")] for name, text in records.items()}
    if exists:
        server.zone[domain, "A"] = ["192.0.2.1"]
    findings = asyncio.run(check_domain(domain, (signing,), DnsResolver([str(server)], 5)))
    return next(finding for finding in findings if finding.what == "dmarc")


@pytest.mark.parametrize(
    ("records", "domain", "signing"),
    [
        # Siblings of one organization, and parent and child.
        ({"example.com": "p=reject"}, "news.example.com", "shop.example.com"),
        ({"example.com": "p=reject"}, "news.example.com", "example.com"),
        ({"example.com": "p=reject"}, "example.com", "news.example.com"),
        # The record with the fewest labels is the organization's, whatever stands in between.
        ({"example.com": "p=none", "eu.example.com": "p=none"}, "a.eu.example.com", "b.example.com"),
        # psd=y: the organization is the name below it, wherever a record is.
        ({"co.uk": "p=none; psd=y", "a.shop.co.uk": "p=none"}, "a.shop.co.uk", "b.shop.co.uk"),
        # psd=n ends the walk, in one organization on both sides.
        ({"unit.example.com": "p=none; psd=n"}, "a.unit.example.com", "b.unit.example.com"),
        # Of more than eight labels all but seven are passed over.
        ({"example.com": "p=none"}, DEEP, "example.com"),
        # The very domain, with or without anything else in DNS about it.
        ({"shop.co.uk": "p=none; adkim=s"}, "shop.co.uk", "shop.co.uk"),
        # psd=u, and what is neither, says nothing.
        ({"example.com": "p=none; psd=u", "com": "p=none; psd=x"}, "a.example.com", "b.example.com"),
    ],
)
def test_signatures_of_the_same_organization_align(server, records, domain, signing) -> None:
    finding = judged(server, records, domain, signing)
    assert (finding.grade, f"signature of {signing} aligns" in finding.found) == (Grade.OK, True), finding


@pytest.mark.parametrize(
    ("records", "domain", "signing", "organization"),
    [
        # A public suffix with a record of its own: two of its customers are two organizations.
        ({"co.uk": "p=reject; psd=y"}, "shop.co.uk", "bank.co.uk", "shop.co.uk"),
        ({"co.uk": "p=reject; psd=y", "shop.co.uk": "p=none"}, "a.shop.co.uk", "co.uk", "shop.co.uk"),
        # A unit that has declared itself an organization of its own.
        ({"unit.example.com": "p=none; psd=n", "example.com": "p=none"},
         "a.unit.example.com", "example.com", "unit.example.com"),
        # Without a record above it each name stands for itself, as a parent's that has none.
        ({"news.example.com": "p=none"}, "news.example.com", "example.com", "news.example.com"),
        ({"example.com": "p=none"}, "example.com", "otherexample.com", "example.com"),
        ({"example.com": "p=none"}, "example.com", "example.com.evil.test", "example.com"),
    ],
)  # fmt: skip
def test_signatures_of_another_organization_do_not(server, records, domain, signing, organization) -> None:
    finding = judged(server, records, domain, signing)
    assert (finding.grade, "does not align" in finding.found) == (Grade.WARNING, True), finding
    assert finding.found.endswith(f"the organizational domain of {domain} is {organization}")


@pytest.mark.parametrize(
    ("records", "domain", "exists", "policy"),
    [
        ({"example.com": "p=reject; sp=quarantine; np=none"}, "example.com", True, "p=reject"),
        ({"example.com": "p=reject; sp=quarantine; np=none"}, "a.example.com", True, "sp=quarantine"),
        ({"example.com": "p=reject; sp=quarantine; np=none"}, "a.example.com", False, "np=none"),
        ({"example.com": "p=reject; sp=quarantine"}, "a.example.com", False, "sp=quarantine"),
        ({"example.com": "p=reject"}, "a.example.com", False, "p=reject"),
        ({"example.com": "p=reject; np=none"}, "a.example.com", True, "p=reject"),
        # The author's own record counts before its organization's, that before the public suffix's.
        ({"a.example.com": "p=none", "example.com": "p=reject"}, "a.example.com", True, "p=none"),
        ({"b.example.com": "p=none", "example.com": "p=reject"}, "a.b.example.com", True, "p=reject"),
        ({"co.uk": "p=reject; psd=y; sp=quarantine"}, "shop.co.uk", True, "sp=quarantine"),
    ],
)
def test_the_policy_is_that_of_the_author_the_organization_or_the_suffix(
    server, records, domain, exists, policy
) -> None:
    finding = judged(server, records, domain, domain, exists=exists)
    assert (finding.grade, finding.found.split(";")[0]) == (Grade.OK, policy), finding


def test_a_walk_asks_eight_names_at_most(server) -> None:
    judged(server, {}, DEEP, DEEP)
    names = dict.fromkeys(name.rstrip(".") for name, _, _ in server.asked if name.startswith("_dmarc."))
    above = DEEP.split(".")[-7:]
    assert list(names) == [f"_dmarc.{DEEP}", *(f"_dmarc.{'.'.join(above[at:])}" for at in range(7))]


@pytest.mark.parametrize("text", ["", "p=", "p=nothing", "sp=none"])
def test_a_record_without_a_policy_is_reported(server, text) -> None:
    finding = judged(server, {"example.com": text}, "example.com", "example.com")
    assert (finding.grade, "is not a policy" in finding.found) == (Grade.WARNING, True)


def test_two_records_are_none_wherever_they_are(server) -> None:
    server.zone["_dmarc.example.com", "TXT"] = [txt("v=DMARC1; p=none"), txt("v=DMARC1; p=reject")]
    findings = asyncio.run(check_domain("a.example.com", (), DnsResolver([str(server)], 5)))
    (finding,) = [finding for finding in findings if finding.what == "dmarc"]
    assert (finding.about, finding.grade) == ("_dmarc.example.com", Grade.WARNING)
    assert "several DMARC records" in finding.found


@pytest.mark.parametrize(
    "other", ["v=spf1 -all", "v=dmarc1; p=reject", "p=reject; v=DMARC1", "v=DMARC10; p=none"]
)
def test_what_is_no_dmarc_record_is_passed_over(server, other) -> None:
    server.zone["_dmarc.example.com", "TXT"] = [txt(other), txt("v = DMARC1 ;p=none")]
    findings = asyncio.run(check_domain("example.com", ("example.com",), DnsResolver([str(server)], 5)))
    (finding,) = [finding for finding in findings if finding.what == "dmarc"]
    assert (finding.grade, finding.found.split(";")[0]) == (Grade.OK, "p=none")
