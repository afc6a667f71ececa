"""What DNS says of a sending domain is told in plain words, and never taken for better than it is."""

import asyncio

import pytest
from outbound.signing import record_of, write_key
from testbed.name_server import NameServer, txt

from mailer.mail.finding import Grade
from mailer.send.checks.domain import check_domain, check_key
from mailer.send.dkim.key_files import KeyFile
from mailer.send.dkim.keys import KeyType
from mailer.send.resolver import DnsResolver

NAME = "mail._domainkey.example.com"
GOOD = {
    ("example.com", "TXT"): [txt("v=spf1 mx -all"), txt("something else")],
    ("_dmarc.example.com", "TXT"): [txt("v=DMARC1; p=reject; adkim=r")],
    ("example.com", "MX"): ["10 mx.example.com."],
}


@pytest.fixture
def server():
    with NameServer(GOOD) as running:
        yield running


@pytest.fixture
def key(tmp_path):
    return write_key(tmp_path, "mail", KeyType.RSA2048)


def examine_key(server, key):
    """Grade and words of the DNS finding."""

    async def run():
        dns = DnsResolver([str(server)], 0.5 if server.silent else 5)
        return await check_key(key.domain, key.selector, KeyFile(key.private_key_path), dns)

    *_, finding = asyncio.run(run())
    return finding.grade, finding.found


def examine_domain(server, domain="example.com", signing=("example.com",)):
    findings = asyncio.run(
        check_domain(domain, signing, DnsResolver([str(server)], 0.5 if server.silent else 5))
    )
    return {finding.what: finding for finding in findings}


def test_a_record_in_two_strings_belongs_to_the_key(server, key):
    server.zone[NAME, "TXT"] = [txt(record_of(key))]
    assert examine_key(server, key) == (Grade.OK, "matches our private key")


@pytest.mark.parametrize(
    ("change", "grade", "words"),
    [
        (lambda record: record.replace("; ", ";").replace("v=DKIM1;", ""), Grade.OK, "matches our"),
        (lambda record: record + " ", Grade.OK, "matches our"),
        (lambda record: record.replace("p=", "p= "), Grade.OK, "matches our"),
        (lambda record: record.replace("p=M", "p=N"), Grade.PROBLEM, "another key"),
        (lambda _: "v=DKIM1; k=rsa; p=", Grade.PROBLEM, "revoked"),
        (lambda _: "v=spf1 -all", Grade.PROBLEM, "not a DKIM key"),
        (lambda record: record.replace("k=rsa", "k=ed25519"), Grade.PROBLEM, "k= is not rsa"),
        (lambda record: record.replace("DKIM1", "DKIM2"), Grade.PROBLEM, "v= is not DKIM1"),
        (lambda record: record + "; t=y:s", Grade.WARNING, "test"),
    ],
)
def test_a_record_is_judged(server, key, change, grade, words):
    server.zone[NAME, "TXT"] = [txt(change(record_of(key)))]
    judged, found = examine_key(server, key)
    assert judged is grade
    assert words in found


def test_no_record_and_two_records_are_failures(server, key):
    assert examine_key(server, key) == (Grade.PROBLEM, "no TXT record")
    server.zone[NAME, "TXT"] = [txt(record_of(key)), txt("v=DKIM1; p=")]
    grade, found = examine_key(server, key)
    assert (grade, found.split(",")[0]) == (Grade.PROBLEM, "2 TXT records")


@pytest.mark.parametrize("state", ["silent", "broken"])
def test_a_server_that_cannot_tell_is_no_finding_about_the_key(server, key, state):
    setattr(server, state, True)
    grade, _ = examine_key(server, key)
    assert grade is Grade.UNKNOWN
    assert {finding.grade for finding in examine_domain(server).values()} == {Grade.UNKNOWN}


def test_a_key_that_cannot_be_used_is_a_failure(server, key):
    key.private_key_path.write_text("garbage")
    grade, found = examine_key(server, key)
    assert grade is Grade.PROBLEM
    assert "not a private key" in found


def test_a_domain_in_order_has_nothing_to_do(server):
    findings = examine_domain(server)
    assert {finding.grade for finding in findings.values()} == {Grade.OK}
    assert findings["spf"].found == '"v=spf1 mx -all"'
    assert findings["mx"].found == "mx.example.com"


def test_a_domain_that_does_not_exist_has_none_of_it(server):
    findings = examine_domain(server, "nowhere.test", ("nowhere.test",))
    assert {finding.grade for finding in findings.values()} == {Grade.WARNING}
    assert all(finding.todo for finding in findings.values())


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (["v=spf1 mx -all", "v=spf1 a -all"], "2 SPF records"),
        (["v=spf1 +all"], "allows any host to send"),
        (["v=spf1 all"], "allows any host to send"),
        (["v=spf10 -all"], "no SPF record"),
    ],
)
def test_an_spf_policy_that_helps_nobody_is_a_warning(server, records, words):
    server.zone["example.com", "TXT"] = [txt(record) for record in records]
    spf = examine_domain(server)["spf"]
    assert spf.grade is Grade.WARNING
    assert words in spf.found


def test_the_policy_of_the_parent_counts_and_relaxed_alignment_takes_its_signature(server):
    dmarc = examine_domain(server, "news.example.com", ("example.com",))["dmarc"]
    assert dmarc.grade is Grade.OK
    assert dmarc.about == "_dmarc.example.com"


def test_strict_alignment_wants_the_very_domain(server):
    server.zone["_dmarc.example.com", "TXT"] = [txt("v=DMARC1; p=reject; adkim=s")]
    dmarc = examine_domain(server, "news.example.com", ("example.com",))["dmarc"]
    assert dmarc.grade is Grade.WARNING
    assert "does not align" in dmarc.found


def test_a_foreign_signature_does_not_align(server):
    dmarc = examine_domain(server, "example.com", ("otherexample.com",))["dmarc"]
    assert dmarc.grade is Grade.WARNING


def test_a_null_mx_is_a_warning(server):
    server.zone["example.com", "MX"] = ["0 ."]
    assert "null MX" in examine_domain(server)["mx"].found
