"""`mailer doctor` about direct delivery and domains: addresses, names, SPF, DKIM and DMARC."""

import asyncio
import json

import pytest
from outbound.examined import EGRESS, HOST, doctor, examined
from outbound.hostile import Server
from outbound.sending import forward_to
from outbound.signing import DOMAIN
from testbed.name_server import NameServer, txt
from testbed.relay import Relay

from mailer.send.resolver import DnsResolver


def test_direct_delivery_in_order_has_nothing_to_do(direct: Relay, server: NameServer, exchanger) -> None:
    found = examined(direct, server, code=0)
    network = {where: line for where, line in found.items() if where[0].startswith(("direct", "domain"))}
    assert {line["grade"] for line in network.values()} == {"ok"}
    assert {what for group, what in network if group == f"domain {DOMAIN}"} == {"dkim", "spf", "dmarc", "mx"}
    assert {what for group, what in network if group != f"domain {DOMAIN}"} == {
        "hostname",
        "egress",
        "ptr",
        "outbound",
    }
    exchanger.wait()
    assert exchanger.messages == []
    assert exchanger.sessions[0].commands[-1] == b"QUIT"


@pytest.mark.parametrize(
    ("record", "texts", "where", "grade", "words"),
    [
        (("25.2.0.192.in-addr.arpa", "PTR"), [], ("direct delivery", "ptr"), "problem", "no PTR record"),
        ((HOST, "A"), ["192.0.2.1"], ("direct delivery", "ptr"), "problem", "does not resolve to it"),
        ((DOMAIN, "TXT"), [txt("v=spf1 -all")], (f"domain {DOMAIN}", "spf"), "problem", "fail (-all"),
        ((f"_dmarc.{DOMAIN}", "TXT"), [], (f"domain {DOMAIN}", "dmarc"), "warning", "no DMARC record"),
        (
            (f"mail._domainkey.{DOMAIN}", "TXT"),
            [txt("v=DKIM1; k=rsa; p=AAAA")],
            (f"domain {DOMAIN}", "dkim"),
            "problem",
            "another key",
        ),
        ((DOMAIN, "MX"), ["0 ."], (f"domain {DOMAIN}", "mx"), "warning", "null MX"),
    ],
)
@pytest.mark.usefixtures("direct")
def test_mistakes_in_dns_are_reported(request, record, texts, where, grade, words) -> None:
    relay, server = request.getfixturevalue("direct"), request.getfixturevalue("server")
    server.zone[record] = texts
    line = examined(relay, server, code=1 if grade == "problem" else 0)[where]
    assert (line["grade"], words in line["found"]) == (grade, True), line


def test_a_name_that_is_only_ours_and_another_ptr_are_reported(direct: Relay, server: NameServer) -> None:
    direct.configure({"hostname": "relay"})
    found = examined(direct, server, code=1)
    assert found["direct delivery", "hostname"]["grade"] == "problem"
    assert found["direct delivery", "ptr"]["grade"] == "warning"
    assert f"set hostname (or directDelivery.ehloDomain) to {HOST}" in found["direct delivery", "ptr"]["todo"]


def test_a_relay_on_this_host_sends_from_where_this_host_sends(relay: Relay, server: NameServer) -> None:
    with Server() as local:
        relay.configure(forward_to(local))
        done = relay.mailer("doctor", "--all", "--resolver", str(server), "--egress", EGRESS)
    assert f"ok      spf        {DOMAIN}: {EGRESS}: pass (ip4:{EGRESS} of {DOMAIN})" in done.stdout


def test_a_blocked_port_is_a_problem(direct: Relay, server: NameServer, free_port: int) -> None:
    settings = json.loads(direct.config.read_text())["directDelivery"]
    direct.configure({"directDelivery": settings | {"port": free_port}})
    line = examined(direct, server, code=1)["direct delivery", "outbound"]
    assert (line["grade"], "Connection refused" in line["found"]) == ("problem", True)


def test_a_host_behind_nat_is_asked_to_name_its_address(direct: Relay, server: NameServer, elsewhere) -> None:
    del elsewhere  # this host has an address that is not loopback, and it is a private or reserved one
    line = doctor(direct, "--resolver", str(server))["direct delivery", "egress"]
    if line["grade"] != "ok":  # a host with a public address knows it
        assert "--egress" in line["todo"]


def test_name_servers_that_do_not_answer_are_unknown_and_75(direct: Relay, server: NameServer) -> None:
    server.silent = True
    found = examined(direct, server, code=75)
    network = {line["grade"] for where, line in found.items() if where[0].startswith("domain")}
    assert network == {"unknown"}


def test_other_domains_are_looked_at_when_named(direct: Relay, server: NameServer) -> None:
    found = examined(direct, server, "--domain", "example.org", "--domain", "EXAMPLE.net.")
    groups = {group for group, _ in found if group.startswith("domain ")}
    assert groups == {"domain example.org", "domain example.net"}


def test_users_and_keys_name_the_domains_that_send(direct: Relay, server: NameServer) -> None:
    for name, sender in (("shop", "shop.example.org"), ("robot", "robot@example.net"), ("all", "*")):
        assert direct.mailer("user", "add", name, "--allow", sender, given="pass word\n").returncode == 0
    groups = {group for group, _ in examined(direct, server) if group.startswith("domain ")}
    assert groups == {f"domain {DOMAIN}", "domain shop.example.org", "domain example.net"}


@pytest.mark.parametrize("option", [("--domain", "a b"), ("--egress", "here"), ("--resolver", "a.invalid")])
def test_an_invalid_option_value_is_a_usage_error(direct: Relay, option: tuple[str, str]) -> None:
    assert direct.mailer("doctor", *option).returncode == 2


def test_a_reverse_name_is_asked_for_as_dns_has_it(server: NameServer) -> None:
    names = asyncio.run(DnsResolver([str(server)], 5).names(EGRESS))
    assert names == [HOST]
