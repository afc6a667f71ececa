"""SPF as RFC 7208 has it, by its own test suite, and what the operator is told of it."""

import asyncio
import ipaddress
import json
from pathlib import Path

import pytest
from testbed.name_server import NameServer, txt

from mailer.mail.finding import Grade
from mailer.send.checks.spf import MAX_LOOKUPS, evaluate
from mailer.send.checks.spf_check import Smarthost, check_egress, check_smarthost
from mailer.send.resolver import DnsResolver, LookupFailed, NoSuchName

SUITE = json.loads((Path(__file__).parents[1] / "data" / "rfc7208-tests.json").read_text())["groups"]
NOT_OURS = {
    "p-macro-multiple": "%{p} is never looked up, which 7.3 allows",
    "macro-reverse-split-on-dash": "uses the sender's local part: we evaluate for a domain",
    "macro-multiple-delimiters": "the same",
}


class Zone:
    """A zone of the suite, where `TIMEOUT` stands for a server that does not answer."""

    def __init__(self, zone):
        self.zone = {name.lower(): records for name, records in zone.items()}

    async def ask(self, name, kind):
        labels = name.lower().rstrip(".").split(".")
        if any(not 0 < len(label) < 64 for label in labels):
            raise LookupFailed("a name that DNS does not have")
        records = self.zone.get(".".join(labels))
        if records is None:
            raise NoSuchName
        found = []
        # The suite writes type SPF where it means both types.
        typed = [record for record in records if isinstance(record, dict)]
        doubled = "TIMEOUT" not in records and not any("TXT" in record for record in typed)
        alias = {"SPF": "TXT"} if doubled else {}
        for record in typed:
            for type_, value in record.items():
                if type_ == "CNAME":
                    return await self.ask(value, kind)
                if alias.get(type_, type_) == kind and value != "NONE":
                    found.append("".join(value) if kind == "TXT" else value)
        if "TIMEOUT" in records and not found:
            raise LookupFailed("no answer")
        return found

    async def texts(self, name):
        return await self.ask(name, "TXT")

    async def mail_exchangers(self, domain):
        return [(preference, host.rstrip(".")) for preference, host in await self.ask(domain, "MX")]

    async def addresses(self, host, *, six):
        return await self.ask(host, "AAAA" if six else "A")

    async def names(self, address):
        return await self.ask(ipaddress.ip_address(address).reverse_pointer, "PTR")


@pytest.mark.parametrize("group", SUITE, ids=lambda group: group["description"])
def test_the_rfcs_own_test_suite_is_passed(group):
    wrong = {}
    for name, test in group["tests"].items():
        domain = test["mailfrom"].rpartition("@")[2] or test["helo"]
        address = ipaddress.ip_address(test["host"])
        verdict = asyncio.run(evaluate(address, domain, Zone(group["zone"]), helo=test["helo"]))
        if verdict.result not in test["result"] and name not in NOT_OURS:
            wrong[name] = verdict
    assert wrong == {}


OURS = ipaddress.ip_address("192.0.2.25")


def examine(server, check):
    return asyncio.run(check(DnsResolver([str(server)], 0.5 if server.silent else 5)))


@pytest.mark.parametrize(
    ("policy", "grade", "words"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", Grade.OK, "pass (ip4:192.0.2.0/24 of example.com)"),
        ("v=spf1 mx -all", Grade.OK, "pass (mx of example.com)"),
        ("v=spf1 include:spf.example.net -all", Grade.OK, "pass (include:spf.example.net"),
        ("v=spf1 redirect=spf.example.net", Grade.OK, "pass (ip4:192.0.2.25 of spf.example.net)"),
        ("v=spf1 ip4:198.51.100.1 -all", Grade.PROBLEM, "fail (-all of example.com)"),
        ("v=spf1 ip4:198.51.100.1 ~all", Grade.PROBLEM, "softfail"),
        ("v=spf1 ip4:198.51.100.1", Grade.WARNING, "neutral"),
        ("v=spf1 ip4:192.0.2.300 -all", Grade.PROBLEM, "malformed"),
        ("v=spf1 include:nowhere.example.net -all", Grade.PROBLEM, "has no SPF record"),
        ("v=spf1 include:loop.example.net -all", Grade.PROBLEM, f"more than {MAX_LOOKUPS} look-ups"),
        ("something else", Grade.WARNING, "has no SPF record"),
    ],
)
def test_our_own_address_is_judged_by_the_policy(policy, grade, words):
    zone = {
        ("example.com", "TXT"): [txt(policy)],
        ("example.com", "MX"): ["10 mx.example.com."],
        ("mx.example.com", "A"): ["192.0.2.25"],
        ("spf.example.net", "TXT"): [txt("v=spf1 ip4:192.0.2.25 ?all")],
        ("loop.example.net", "TXT"): [txt("v=spf1 include:loop.example.net -all")],
    }
    with NameServer(zone) as server:
        finding = examine(server, lambda dns: check_egress("example.com", OURS, dns, "mx.example.com"))
    assert (finding.grade, bool(finding.todo)) == (grade, grade is not Grade.OK)
    assert words in finding.found


def test_a_silent_server_is_no_verdict():
    with NameServer({}) as server:
        server.silent = True
        finding = examine(server, lambda dns: check_egress("example.com", OURS, dns, "x"))
    assert finding.grade is Grade.UNKNOWN


@pytest.mark.parametrize(
    ("host", "policy", "grade", "words"),
    [
        ("smtp.provider.test", "v=spf1 a:smtp.provider.test -all", Grade.OK, "pass (a:smtp.provider.test"),
        ("smtp.provider.test", "v=spf1 include:_spf.provider.test ~all", Grade.OK, "include:_spf.provider"),
        ("smtp.gmail.com", "v=spf1 include:_spf.google.com ~all", Grade.OK, "include:_spf.google.com"),
        ("smtp.gmail.com", "v=spf1 include:_spf.provider.test ~all", Grade.WARNING, "neither its addresses"),
        ("smtp.provider.test", "v=spf1 -all", Grade.WARNING, "neither its addresses"),
        ("smtp.provider.test", "v=spf1 a:smtp:provider -all", Grade.PROBLEM, "does not name a domain"),
        ("smtp.provider.test", "hello", Grade.WARNING, "no SPF record"),
    ],
)
def test_a_provider_is_known_by_its_address_or_by_its_include(host, policy, grade, words):
    zone = {
        ("example.com", "TXT"): [txt(policy)],
        ("smtp.provider.test", "A"): ["192.0.2.25"],
        ("_spf.provider.test", "TXT"): [txt("v=spf1 ip4:198.51.100.0/24 -all")],
        ("_spf.google.com", "TXT"): [txt("v=spf1 ip4:203.0.113.0/24 -all")],
    }
    with NameServer(zone) as server:
        finding = examine(server, lambda dns: check_smarthost("example.com", Smarthost(host, (OURS,)), dns))
    assert (finding.grade, words in finding.found) == (grade, True), finding
