"""`trustedNetworks`: printers and their like are somebody by their address, and nobody else is."""

import json
import smtplib
import socket
import ssl
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from inbound.receiving import CLOSED, certificate, login, running
from testbed.ports import free_port
from testbed.relay import Relay

from mailer.cli.doctor.ports import trusted_findings
from mailer.cli.receiving.receiver import settings
from mailer.config.checks import refuse_to_serve
from mailer.config.load import load
from mailer.config.model import Config
from mailer.config.receiving import Listener
from mailer.config.receiving import TrustedNetwork as Configured
from mailer.config.trusted_clients import network
from mailer.config.users import User, changing_users
from mailer.config.warnings import warnings
from mailer.mail.patterns import AddressPatterns
from mailer.receive.listen.inherited import Inherited
from mailer.receive.settings import Endpoint, Settings
from mailer.receive.users import hashes
from mailer.receive.users.account import Account
from mailer.receive.users.auth import Identity
from mailer.receive.users.rates import Rate, RateLimiter, RateRules
from mailer.receive.users.trusted import TrustedNetwork, user_at

MESSAGE = "From: scan@lan.example\r\n\r\nhello\r\n"
PRINTERS = Account(Identity("printers", AddressPatterns.of(("lan.example",))), "no hash")
OPS = Account(Identity("ops"), hashes.hash_token("correct horse"))


@pytest.mark.security_case(119)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0/0", "is larger than any network of one owner: at least /8"),
        # Two halves of everything.
        ("128.0.0.0/1", "at least /8"),
        ("::/0", "at least /7"),
        ("2000::/3", "at least /7"),
        ("127.0.0.0/8", "is this host itself"),
        ("127.0.0.1", "is this host itself"),
        ("::1", "is this host itself"),
        ("224.0.0.0/8", "multicast"),
        ("10.0.0.7/8", "write 10.0.0.0/8, or 10.0.0.7 for that host alone"),
        ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"),
        ("::ffff:10.1.2.3", "write 10.1.2.3/32"),
        ("10.0.0.0/33", "is not a network"),
        ("10.0.0", "is not a network"),
        ("printers.example", "is not a network"),
        ("fe80::1%eth0", "is not a network"),
    ],
)
def test_a_network_that_is_nobodys_own_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        network(text)


@pytest.mark.security_case(119, 120)
@pytest.mark.parametrize(
    ("peer", "user"),
    [
        ("10.1.2.3", "all"),
        ("10.7.2.3", "office"),
        # The smallest that has it, wherever it stands in the list.
        ("10.7.0.9", "printer"),
        ("::ffff:10.7.0.9", "printer"),
        ("11.0.0.1", ""),
        ("fd00:7::1", "six"),
        ("fe80::1%eth0", "link"),
        ("fd00:8::1", ""),
        # This host is never a network.
        ("127.0.0.1", ""),
        ("::ffff:127.0.0.1", ""),
        ("::1", ""),
        ("unix", ""),
        ("unix:0", ""),
        ("", ""),
    ],
)
def test_the_smallest_network_that_has_the_client_says_who_it_is(peer: str, user: str) -> None:
    trusted = [
        TrustedNetwork(ip_network(text), name)
        for text, name in (
            ("10.7.0.9/32", "printer"),
            ("10.0.0.0/8", "all"),
            ("10.7.0.0/16", "office"),
            ("fd00:7::/64", "six"),
            ("fe80::/10", "link"),
            ("0.0.0.0/0", ""),
        )
    ]
    assert user_at(peer, trusted) == user
    assert user_at(peer, ()) == ""


def trusting(elsewhere: str, user: str = "printers", network: str = "") -> Settings:
    """Where one address that is not loopback is the user's, or a network is."""
    door = Endpoint(elsewhere, 0, name="smtp")
    trusted = {door: (TrustedNetwork(ip_network(network or elsewhere), user),)}
    return replace(CLOSED, host=elsewhere, local_only=False, trusted=trusted)


def test_a_trusted_client_sends_as_its_user_may_and_no_oftener(tmp_path: Path, elsewhere: str) -> None:
    rates = RateLimiter(RateRules(of_user={"printers": Rate(per_hour=1)}.get), lambda: 0.0)
    with running(tmp_path, trusting(elsewhere), login(PRINTERS, OPS), rates=rates) as receiver:
        with smtplib.SMTP(*receiver.address, timeout=60) as client:
            assert client.docmd("EHLO x")[0] == 250
            assert client.docmd("MAIL FROM:<a@other.example>")[0] == 553
            client.sendmail("scan@lan.example", ["b@example.net"], MESSAGE)
            assert client.docmd("MAIL FROM:<scan@lan.example>")[0] == 451
        (entry,) = (receiver.spool / "new").iterdir()
        stored = entry.read_bytes()
    assert f"Spool-User: printers\r\nSpool-Peer: {elsewhere}\r\n".encode() in stored
    # RFC 3848: ESMTPA is for those that have logged in.
    assert b" with ESMTP id " in stored


@pytest.mark.security_case(120)
def test_a_client_is_where_the_kernel_says_and_not_where_it_says(tmp_path: Path, elsewhere: str) -> None:
    settings = trusting(elsewhere, network="10.77.0.0/16")
    claims = [
        "PROXY TCP4 10.77.0.1 10.77.0.2 4711 25",
        "XCLIENT ADDR=10.77.0.1 LOGIN=printers",
        "XFORWARD ADDR=10.77.0.1",
    ]
    with (
        running(tmp_path, settings, login(PRINTERS)) as receiver,
        smtplib.SMTP(*receiver.address, timeout=60) as client,
    ):
        client.docmd("EHLO [10.77.0.1]")
        for claim in claims:
            assert client.docmd(claim)[0] == 500
        code, text = client.docmd("MAIL FROM:<scan@lan.example> AUTH=printers")
        assert (code, text[:5]) in {(530, b"5.7.0"), (530, b"5.7.1")}


@pytest.mark.security_case(120)
def test_a_socket_of_both_families_knows_ipv4_clients(tmp_path: Path, elsewhere: str) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        given = Inherited(listening.dup(), "smtp")
        with (
            running(tmp_path, trusting(elsewhere), login(PRINTERS), inherited=(given,)),
            smtplib.SMTP(elsewhere, given.address[1], timeout=60) as client,
        ):
            client.sendmail("scan@lan.example", ["b@example.net"], MESSAGE)


def test_a_trusted_client_may_log_in_as_another_in_tls(tmp_path: Path, elsewhere: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    settings = trusting(elsewhere)
    with (
        running(tmp_path, settings, login(PRINTERS, OPS), certificate=certificate(tmp_path)) as receiver,
        smtplib.SMTP(*receiver.address, timeout=60) as client,
    ):
        client.ehlo("x")
        assert not client.has_extn("auth")
        client.starttls(context=context)
        # A wrong password changes nothing.
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ops", "wrong")
        assert client.docmd("MAIL FROM:<a@other.example>")[0] == 553
        client.sendmail("scan@lan.example", ["b@example.net"], MESSAGE)
        client.login("ops", "correct horse")
        client.sendmail("a@other.example", ["b@example.net"], "From: a@other.example\r\n\r\nhello\r\n")
        assert client.docmd("AUTH PLAIN AG9wcwB4")[0] == 503
        stored = b"".join(entry.read_bytes() for entry in (receiver.spool / "new").iterdir())
    assert stored.count(b"Spool-User: printers\r\n") == stored.count(b"Spool-User: ops\r\n") == 1


def test_one_whose_user_is_gone_must_log_in(tmp_path: Path, elsewhere: str) -> None:
    with (
        running(tmp_path, trusting(elsewhere, user="gone"), login(OPS)) as receiver,
        smtplib.SMTP(*receiver.address, timeout=60) as client,
    ):
        client.ehlo("x")
        assert client.docmd("MAIL FROM:<scan@lan.example>")[0] == 530


OFFICE = {"cidr": "10.7.0.0/16", "user": "printers"}


@pytest.mark.security_case(119)
@pytest.mark.parametrize(
    ("listener", "refused"),
    [
        ({"host": "192.0.2.1", "trustedNetworks": [OFFICE]}, []),
        ({"host": "", "trustedNetworks": [OFFICE]}, []),
        # Nobody comes from a network there: it is meant for another listener, or not meant at all.
        (
            {"trustedNetworks": [OFFICE]},
            ["$.listeners[0].trustedNetworks: needs a listener beyond this host"],
        ),
        ({"host": "localhost", "trustedNetworks": [OFFICE]}, ["$.listeners[0].trustedNetworks: needs"]),
        ({"unixSocket": "s", "trustedNetworks": [OFFICE]}, ["$.listeners[0].trustedNetworks: needs"]),
        (
            {"host": "192.0.2.1", "trustedNetworks": [OFFICE, {**OFFICE, "user": "ops"}]},
            ["$.listeners[0].trustedNetworks[1].cidr: 10.7.0.0/16 is there already"],
        ),
        (
            {"host": "192.0.2.1", "trustedNetworks": [{"cidr": "0.0.0.0/0", "user": "printers"}]},
            ["$.listeners[0].trustedNetworks[0].cidr: is larger"],
        ),
        # All the others log in there.
        (
            {"host": "192.0.2.1", "auth": "offered", "trustedNetworks": [OFFICE]},
            ["$.listeners[0].auth: without a login"],
        ),
    ],
)
def test_networks_are_for_listeners_beyond_this_host(
    listener: object, refused: list[str], tmp_path: Path
) -> None:
    relay = Relay(tmp_path, {"listeners": [listener], "security": {"allowLocalOnly": False}})
    found = [str(each) for each in refuse_to_serve(load(relay.config, {}))]
    assert len(found) == len(refused)
    assert all(each.startswith(begin) for each, begin in zip(found, refused, strict=True))


@pytest.mark.security_case(119)
def test_public_addresses_and_unknown_users_are_warned_of(tmp_path: Path) -> None:
    networks = [
        OFFICE,
        {"cidr": "203.0.113.7", "user": "printers"},
        {"cidr": "100.64.0.0/10", "user": "app@example.com"},
    ]
    listener = {"host": "192.0.2.1", "trustedNetworks": networks}
    relay = Relay(tmp_path, {"listeners": [listener], "security": {"allowLocalOnly": False}})
    found = [str(each) for each in warnings(load(relay.config, {}))]
    told = [each for each in found if "trustedNetworks" in each]
    assert [each.partition(":")[0].removeprefix("$.listeners[0].trustedNetworks") for each in told] == [
        "[0].user",
        "[1].user",
        "[1].cidr",
        "[2].cidr",
    ]
    assert "every host that has one of them may send as" in told[2]


def test_doctor_says_what_a_network_opens(tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    with changing_users(users) as known:
        known["printers"] = User(
            name="printers", hash="", allowed_senders=("scan@lan.example",), max_per_hour=100, max_per_day=500
        )
        known["anyone"] = User(name="anyone", hash="")
    networks = (
        Configured(cidr="10.7.0.0/16", user="printers"),
        Configured(cidr="203.0.113.7", user="printers"),
        Configured(cidr="10.8.0.1", user="anyone"),
        Configured(cidr="10.9.0.1", user="nobody"),
        Configured(cidr="10.9.0.1/8", user="anyone"),
    )
    listener = Listener(host="", port=2525, trusted_networks=networks)
    config = Config(spool_dir=tmp_path, users_file=users, listeners=(listener,))
    (trusted,) = settings(config, None).trusted.values()
    assert len(trusted) == len(networks) - 1
    found = list(trusted_findings(config))
    assert [each.grade for each in found] == ["ok", "warning", "warning", "problem", "problem"]
    assert {each.about for each in found} == {"*:2525"}
    assert found[0].found.startswith(
        "65536 addresses (10.7.0.0/16) may send as printers without a password: from scan@lan.example, "
        "100 messages an hour and 500 messages a day. "
    )
    assert found[2].found.startswith("1 address (10.8.0.1/32) may send as anyone without a password: ")
    assert "from any sender, without a limit of its own" in found[2].found
    assert "--max-per-hour" in found[2].todo


def test_doctor_shows_a_network_also_where_all_is_well(relay: Relay) -> None:
    """What is well is only counted otherwise."""
    users = relay.directory / "users.json"
    with changing_users(users) as known:
        known["printers"] = User(name="printers", hash="", allowed_senders=("a@lan.example",), max_per_day=9)
    network = {"cidr": "10.7.3.0/24", "user": "printers"}
    listener = {"host": "10.7.0.1", "port": 2525, "trustedNetworks": [network]}
    relay.configure({"usersFile": str(users), "listeners": [listener], "security": {"allowLocalOnly": False}})
    told = relay.mailer("doctor", "--offline").stdout
    assert "  ok      trusted    10.7.0.1:2525: 256 addresses (10.7.3.0/24) may send as printers" in told
    assert " checks: " in told


def test_a_printer_sends_and_the_ledger_says_who_it_was(tmp_path: Path, elsewhere: str) -> None:
    port = free_port()
    listener = {"host": elsewhere, "port": port, "trustedNetworks": [{"cidr": elsewhere, "user": "printers"}]}
    relay = Relay(tmp_path, {"listeners": [listener], "security": {"allowLocalOnly": False}})
    added = relay.mailer("user", "add", "printers", "--allow", "lan.example", given="a long password\n")
    assert added.returncode == 0, added.stderr
    with relay.serve() as server:
        server.await_port(port, elsewhere)
        with smtplib.SMTP(elsewhere, port, timeout=60) as client:
            client.sendmail("scan@lan.example", ["b@example.net"], MESSAGE)
        # This host's other door has no such network.
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=60) as client:
            client.ehlo("x")
            assert client.docmd("MAIL FROM:<scan@lan.example>")[0] == 530
        told = relay.mailer("doctor", "--offline", "--json").stdout
        # It is trusted no more, as soon as that has been read.
        relay.configure({"listeners": [{**listener, "trustedNetworks": []}]})
        assert relay.mailer("reload").returncode == 0
        with smtplib.SMTP(elsewhere, port, timeout=60) as client:
            client.ehlo("x")
            assert client.docmd("MAIL FROM:<scan@lan.example>")[0] == 530
    lines = [json.loads(line) for line in relay.mailer("log", "--json").stdout.splitlines()]
    accepted = [(each["user"], each["peer"]) for each in lines if each["event"] == "accepted"]
    assert accepted == [("printers", elsewhere)]
    opened = [json.loads(line) for line in told.splitlines()]
    assert [each["about"] for each in opened if each["what"] == "trusted"] == [f"{elsewhere}:{port}"]
