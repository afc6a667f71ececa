"""Where a domain's mail goes: what DNS may say, by a scripted name server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import DROP, HANG, Server, per_address
from outbound.internet import Internet, run, words
from outbound.sending import found, outcomes, queue
from testbed.capability import ipv6_loopback
from testbed.dkim_verifiers import loopback_address
from testbed.faketime import faketime
from testbed.name_server import NameServer
from testbed.relay import Relay

from mailer.send.resolver import DnsResolver, LookupFailed
from mailer.send.routes.mx import MAX_HOSTS, Rules, addresses

pytestmark = pytest.mark.fault_row(20)

MX1, MX2, SIX = "127.0.0.21", "127.0.0.22", "::1"


@pytest.fixture
def internet() -> Iterator[Internet]:
    with ipv6_loopback(), Internet.of({}) as made:
        yield made


def recipients_at(server: Server) -> list[list[str]]:
    return [message.recipients for message in server.messages]


# Which host.


def test_exchangers_of_equal_preference_share_the_mail(relay: Relay, internet: Internet) -> None:
    """RFC 5321 5.1. That all 24 messages should go to one of two by chance happens once in 8 million runs."""
    internet.dns.zone |= {
        ("one.test", "MX"): ["10 mx1.test.", "10 mx2.test.", "20 mx3.test."],
        ("mx1.test", "A"): [MX1],
        ("mx2.test", "A"): [MX2],
    }
    first, second = internet.server(MX1), internet.server(MX2)
    relay.configure(internet.settings())
    ids = [queue(relay.spool, ["bob@one.test"]) for _ in range(24)]
    assert relay.mailer_send("--once").returncode == 0
    assert [found(relay.spool, message) for message in ids] == [None] * 24
    assert len(first.messages) + len(second.messages) == 24
    assert first.messages
    assert second.messages
    assert ("mx3.test", "A", "udp") not in internet.dns.asked


@pytest.mark.parametrize("address", ["bob@[IPv6:::1]", "bob@[ipv6:0:0:0:0:0:0:0:1]"])
def test_an_ipv6_literal_is_its_own_exchanger(relay: Relay, internet: Internet, address: str) -> None:
    server = internet.server(SIX)
    assert run(relay, internet, [address]) is None
    assert recipients_at(server) == [[address]]
    assert internet.dns.asked == []


@pytest.mark.parametrize("domain", ["bücher.test", "BÜCHER.test", "xn--bcher-kva.test"])
def test_a_domain_beyond_ascii_is_looked_up_by_its_a_label_and_written_as_it_came(
    relay: Relay, internet: Internet, domain: str
) -> None:
    """RFC 6531 3.7.1, RFC 5891."""
    internet.dns.zone |= {("xn--bcher-kva.test", "MX"): ["10 mx1.test."], ("mx1.test", "A"): [MX1]}
    server = internet.server(MX1)
    assert run(relay, internet, [f"bob@{domain}"]) is None
    assert recipients_at(server) == [[f"bob@{domain}"]]
    assert {name for name, _, _ in internet.dns.asked} == {"xn--bcher-kva.test", "mx1.test"}


def test_an_alias_of_an_exchanger_is_followed(relay: Relay, internet: Internet) -> None:
    """RFC 2181 10.3 forbids it, and zones have it."""
    internet.dns.zone |= {
        ("one.test", "MX"): ["10 mail.test."],
        ("mail.test", "CNAME"): ["real.test."],
        ("real.test", "A"): [MX1],
    }
    server = internet.server(MX1)
    assert run(relay, internet) is None
    assert recipients_at(server) == [["bob@one.test"]]


def test_a_recipient_that_breaks_sessions_is_found_though_another_exchanger_is_down(
    relay: Relay, internet: Internet
) -> None:
    internet.dns.zone |= {
        ("one.test", "MX"): ["10 mx1.test.", "20 mx2.test."],
        ("mx1.test", "A"): [MX1],
        ("mx2.test", "A"): [MX2],
    }
    to = [f"{name}@one.test" for name in ("ann", "bob", "eve")]
    server = internet.server(MX1, {"rcpt": per_address({to[1]: DROP})})
    relay.configure(internet.settings())
    message = queue(relay.spool, to)
    for _ in range(2):
        assert relay.mailer_send("--once").returncode == 0
        relay.mailer("spool", "retry", "--all").check_returncode()
    assert recipients_at(server) == [[to[0]], [to[2]]]
    left = found(relay.spool, message)
    assert left
    assert left.statuses == {to[0]: "sent", to[1]: "deferred", to[2]: "sent"}


# Which address.


@pytest.mark.parametrize(
    ("version", "at_six", "at_four"),
    [
        ("any", ["both", "six", "implicit-both", "implicit-six"], ["four", "implicit-four"]),
        ("4", [], ["both", "four", "implicit-both", "implicit-four"]),
        ("6", ["both", "six", "implicit-both", "implicit-six"], []),
    ],
)
def test_ipv6_comes_first_and_ip_version_narrows_it_down(
    relay: Relay, internet: Internet, version: str, at_six: list[str], at_four: list[str]
) -> None:
    """With an MX record and without one: the implicit MX has AAAA records too (RFC 5321 5.1)."""
    families = {"both": {"AAAA": SIX, "A": MX1}, "six": {"AAAA": SIX}, "four": {"A": MX1}}
    for name, records in families.items():
        internet.dns.zone[f"{name}.test", "MX"] = [f"10 mx.{name}.test."]
        for kind, address in records.items():
            internet.dns.zone[f"mx.{name}.test", kind] = [address]
            internet.dns.zone[f"implicit-{name}.test", kind] = [address]
    six, four = internet.server(SIX), internet.server(MX1)
    everywhere = [*families, *(f"implicit-{name}" for name in families)]
    message = run(relay, internet, [f"bob@{name}.test" for name in everywhere], ipVersion=version)
    assert sorted(recipients_at(six)) == sorted([f"bob@{name}.test"] for name in at_six)
    assert sorted(recipients_at(four)) == sorted([f"bob@{name}.test"] for name in at_four)
    for name in {*everywhere} - {*at_six, *at_four}:
        assert message.statuses[f"bob@{name}.test"] == "deferred"
        assert f"of {name}.test has an IPv{version} address" in words(message)
    assert {"4": "AAAA", "6": "A"}.get(version) not in {kind for _, kind, _ in internet.dns.asked}


def test_when_ipv6_does_not_work_ipv4_is_tried(relay: Relay, internet: Internet) -> None:
    internet.dns.zone |= {("one.test", "AAAA"): [SIX], ("one.test", "A"): [MX1]}
    server = internet.server(MX1)
    assert run(relay, internet) is None
    assert recipients_at(server) == [["bob@one.test"]]


def test_a_family_that_cannot_be_looked_up_does_not_keep_us_from_the_other(
    relay: Relay, internet: Internet
) -> None:
    """Some name servers answer every AAAA with SERVFAIL (RFC 4074 4)."""
    internet.dns.zone |= {("one.test", "A"): [MX1]}
    internet.dns.broken_for = {("one.test", "AAAA")}
    server = internet.server(MX1)
    assert run(relay, internet) is None
    assert recipients_at(server) == [["bob@one.test"]]


@pytest.mark.parametrize(
    "inside",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::1", "2002:a00:1::1", "::127.0.0.1"),
    ],
)
def test_an_address_that_leads_inside_is_refused_in_every_dress(inside: str) -> None:
    """A stranger's DNS must not make us connect to ourselves or to our network."""
    literal = f"[IPv6:{inside}]" if ":" in inside else f"[{inside}]"
    rules = Rules(ipv4=True, ipv6=True, allow_private=False)
    assert asyncio.run(addresses(None, literal, rules)) == ([], [inside])  # type: ignore[arg-type]


@pytest.mark.parametrize("outside", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_in_the_open_is_used(outside: str) -> None:
    literal = f"[IPv6:{outside}]" if ":" in outside else f"[{outside}]"
    rules = Rules(ipv4=True, ipv6=True, allow_private=False)
    assert asyncio.run(addresses(None, literal, rules)) == ([outside], [])  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["4", "6"])
def test_a_literal_of_the_family_that_is_switched_off_is_not_connected_to(
    relay: Relay, internet: Internet, version: str
) -> None:
    six, four = internet.server(SIX), internet.server(MX1)
    other = f"bob@[{MX1}]" if version == "6" else "bob@[IPv6:::1]"
    message = run(relay, internet, [other], ipVersion=version)
    assert message.place == "retry"
    assert not six.sessions
    assert not four.sessions
    assert f"has an IPv{version} address" in words(message)


# Which name server.


def test_a_dead_name_server_leaves_time_for_the_next_one(relay: Relay, internet: Internet) -> None:
    internet.dns.zone["one.test", "A"] = [MX1]
    server = internet.server(MX1)
    with NameServer({}) as dead:
        dead.silent = True
        relay.configure(internet.settings())
        relay.configure({"dns": {"nameservers": [str(dead), str(internet.dns)], "timeout": "1s"}})
        message = queue(relay.spool, ["bob@one.test"])
        assert relay.mailer_send("--once").returncode == 0
    assert found(relay.spool, message) is None
    assert recipients_at(server) == [["bob@one.test"]]


def test_name_servers_of_resolv_conf_are_those_it_names_now(tmp_path: Path) -> None:
    """A watcher stays while a laptop goes from one network to the next."""
    resolv_conf = tmp_path / "resolv.conf"

    async def asked_twice(first: NameServer, second: NameServer) -> list[list[str]]:
        resolv_conf.write_text(f"nameserver {first.host}\n")
        resolver = DnsResolver([], 5, resolv_conf)
        answers = [await resolver.addresses("one.test", six=False)]
        for text in ("# nothing yet\n", f"nameserver {second.host}\n"):
            renewed = tmp_path / "renewed"
            renewed.write_text(text)
            renewed.replace(resolv_conf)
            answers.append(await resolver.addresses("one.test", six=False))
        return answers

    with (
        NameServer({("one.test", "A"): [MX1]}, host=loopback_address(), port=53) as first,
        NameServer({("one.test", "A"): [MX2]}, host=loopback_address(), port=53) as second,
    ):
        assert asyncio.run(asked_twice(first, second)) == [[MX1], [MX1], [MX2]]


def test_without_any_name_server_the_run_says_so(tmp_path: Path) -> None:
    for text in ("", "options edns0\n"):
        (tmp_path / "resolv.conf").write_text(text)
        with pytest.raises(LookupFailed, match="names none"):
            DnsResolver([], 5, tmp_path / "resolv.conf")
    with pytest.raises(LookupFailed, match="names none"):
        DnsResolver([], 5, tmp_path / "not there")


# Bounds, and answers that are none.


def test_a_name_that_no_domain_can_have_bounces(relay: Relay, internet: Internet) -> None:
    """255 octets are a path of RFC 5321, and two too many for the DNS."""
    long = ".".join(["a" * 60] * 4)
    message = run(relay, internet, [f"bob@{long}.12345678901"])
    assert message.place == "failed"
    assert "no domain can have that name" in words(message)


def test_an_answer_that_is_cut_is_asked_for_again_by_tcp(relay: Relay, internet: Internet) -> None:
    internet.dns.zone["one.test", "MX"] = [
        *(f"{20 + n} a-rather-long-name-of-backup-{n}.test." for n in range(30)),
        "10 mx1.test.",
    ]
    internet.dns.zone["mx1.test", "A"] = [MX1]
    server = internet.server(MX1)
    assert run(relay, internet) is None
    assert recipients_at(server) == [["bob@one.test"]]
    assert [question for question in internet.dns.asked if question[0] == "one.test"] == [
        ("one.test", "MX", "udp"),
        ("one.test", "MX", "tcp"),
    ]


def test_five_hundred_exchangers_cost_no_more_than_five(relay: Relay, internet: Internet) -> None:
    for n in range(500):
        internet.dns.zone[f"mx{n}.test", "A"] = [f"127.1.{n // 250}.{n % 250}"] * 3
    internet.dns.zone["one.test", "MX"] = [f"10 mx{n}.test." for n in range(500)]
    message = run(relay, internet)
    assert message.place == "retry"
    assert [kind for kind, _ in outcomes(message)] == ["trouble"] * (MAX_HOSTS - 1) + ["deferred"]
    assert len({name for name, kind, _ in internet.dns.asked if kind == "A"}) == MAX_HOSTS


def test_a_tarpit_at_every_address_costs_ten_minutes_and_not_hours(relay: Relay, internet: Internet) -> None:
    """Each is granted the five minutes of RFC 5321 4.5.3.2.1, here with a clock that is 200 times as fast."""
    hosts = range(31, 36)
    internet.dns.zone |= {(f"mx{n}.test", "A"): [f"127.0.0.{n}"] for n in hosts}
    internet.dns.zone["one.test", "MX"] = [f"{n} mx{n}.test." for n in hosts]
    servers = [internet.server(f"127.0.0.{n}", {"banner": HANG}) for n in hosts]
    internet.dns_timeout = "10m"
    relay.configure(internet.settings())
    message = queue(relay.spool, ["bob@one.test"])
    assert relay.mailer_send("--once", under=faketime("+0 x200")).returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert words(left).endswith("Connection timed out")
    # The third, if the second's time was not over to the very instant; fewer, if this machine is so busy that
    # one takes the time of two.
    assert [len(server.sessions) for server in servers] in [[1] * n + [0] * (5 - n) for n in (1, 2, 3)]


def test_a_loop_of_aliases_at_an_exchanger_is_bounded(relay: Relay, internet: Internet) -> None:
    internet.dns.zone |= {
        ("one.test", "MX"): ["10 loop.test.", "20 mx1.test."],
        ("loop.test", "CNAME"): ["pool.test."],
        ("pool.test", "CNAME"): ["loop.test."],
        ("mx1.test", "A"): [MX1],
    }
    server = internet.server(MX1)
    assert run(relay, internet) is None
    assert recipients_at(server) == [["bob@one.test"]]
    assert len(internet.dns.asked) < 40


@pytest.mark.parametrize("fault", ["broken_for", "silent_for", "NXDOMAIN", "private"])
def test_trouble_with_one_exchangers_address_leaves_the_next_one(
    relay: Relay, internet: Internet, fault: str
) -> None:
    internet.dns.zone |= {
        ("one.test", "MX"): ["10 first.test.", "20 mx1.test."],
        ("mx1.test", "A"): [MX1],
    }
    if fault == "private":
        internet.dns.zone["first.test", "A"] = ["0.0.0.1"]
    elif fault != "NXDOMAIN":
        setattr(internet.dns, fault, {("first.test", "A"), ("first.test", "AAAA")})
    server = internet.server(MX1)
    assert run(relay, internet) is None
    assert recipients_at(server) == [["bob@one.test"]]


def test_each_domain_of_one_message_has_the_fate_that_its_own_zone_gives_it(
    relay: Relay, internet: Internet
) -> None:
    """All kinds of answers in one attempt; each bounced recipient is bounced once."""
    internet.dns.zone |= {
        ("good.test", "MX"): ["10 mx1.test."],
        ("mx1.test", "A"): [MX1],
        ("null.test", "MX"): ["0 ."],
        ("loop.test", "CNAME"): ["loop.test."],
        ("empty.test", "TXT"): ['"no address here"'],
        ("lost.test", "MX"): ["10 nowhere.test."],
        # What a fall to the address record would reach.
        ("broken.test", "A"): [MX2],
        ("silent.test", "A"): [MX2],
        ("lost.test", "A"): [MX2],
        ("null.test", "A"): [MX2],
    }
    internet.dns.broken_for = {("broken.test", "MX")}
    internet.dns.silent_for = {("silent.test", "MX")}
    good, wrong = internet.server(MX1), internet.server(MX2)
    fates: dict[str, Any] = {
        "good": ("sent", "250 2.0.0 queued"),
        "null": ("bounced", "556 5.1.10 null.test accepts no mail (null MX)"),
        "gone": ("bounced", "550 5.1.2 gone.test: the domain does not exist (NXDOMAIN)"),
        "broken": ("deferred", "MX lookup for broken.test: name servers failed: SERVFAIL"),
        "silent": ("deferred", "MX lookup for silent.test: name servers did not answer in time"),
        "loop": ("deferred", "MX lookup for loop.test: "),
        "empty": ("deferred", "no mail exchanger of empty.test has an address"),
        "lost": ("deferred", "address lookup for nowhere.test: the domain does not exist (NXDOMAIN)"),
    }
    to = [f"{who}@{name}.test" for name in fates for who in ("ann", "bob")]
    message = run(relay, internet, to)
    assert message.statuses == {address: fates[address[4:-5]][0] for address in to}
    for name, (kind, said) in fates.items():
        pair = [f"ann@{name}.test", f"bob@{name}.test"]
        [event] = [event for event in message.events if event["event"] == kind and event["to"] == pair]
        assert event["reply"].startswith(said)
    assert recipients_at(good) == [["ann@good.test", "bob@good.test"]]
    assert not wrong.sessions
    # The next attempt: who was bounced is not asked about again, who was sent to gets nothing more.
    internet.dns.asked.clear()
    relay.mailer_send("--once", under=faketime("+3m"))
    again = found(relay.spool, message.name)
    assert again is not None
    assert again.statuses == message.statuses
    assert {name for name, _, _ in internet.dns.asked}.isdisjoint({"null.test", "gone.test", "good.test"})
    assert len(good.messages) == 1
