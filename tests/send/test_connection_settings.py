"""On what terms a next hop is spoken to: from which address, how fast, over how many sessions, which TLS."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from outbound.hostile import HANG, Server
from outbound.internet import Internet
from outbound.outgoing import LONG, Letter, hop_to
from outbound.sending import LOGIN, MESSAGE, TO, at, forward_to, found, queue
from outbound.two_domains import BOB, EVE, MX1, MX2, ZONE
from testbed.ports import LOOPBACK
from testbed.relay import Relay

from mailer.config.hops import TlsLevel, TlsPolicy
from mailer.mail.outcome import Status
from mailer.send.routes.tls_demand import demand_of
from mailer.send.smtp.client import Session
from mailer.send.smtp.pool import Pool
from mailer.send.trouble import HopTrouble

AUTHORITY = trustme.CA()


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet.of(ZONE) as made:
        yield made


def certified(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "authorities.pem"
    AUTHORITY.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))


def peers(server: Server) -> list[str]:
    return [session.peer for session in server.sessions]


def test_a_provider_is_connected_to_from_its_source_address(relay: Relay) -> None:
    with Server() as server:
        provider = {"host": LOOPBACK, "port": server.port, "sourceAddress": "127.0.0.77"}
        relay.configure(forward_to(forwardProviders=[provider]))
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]
        assert peers(server) == ["127.0.0.77"]


def test_an_exchanger_is_connected_to_from_the_source_address_and_in_its_family_only(
    relay: Relay, internet: Internet
) -> None:
    internet.dns.zone |= {("mx1.one.test", "AAAA"): ["::1"]}
    server = internet.server(MX1)
    relay.configure(internet.settings(sourceAddress="127.0.0.78"))
    message = queue(relay.spool, [BOB])
    relay.mailer_send("--once")
    assert found(relay.spool, message) is None
    assert peers(server) == ["127.0.0.78"]


def test_a_source_address_that_is_not_ours_is_our_trouble_and_costs_no_mail(relay: Relay) -> None:
    with Server() as server:
        provider = {"host": LOOPBACK, "port": server.port, "sourceAddress": "192.0.2.1"}
        relay.configure(forward_to(forwardProviders=[provider]))
        message = queue(relay.spool)
        relay.mailer_send("--once")
        assert server.sessions == []
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert left.events[-1]["scope"] == "local"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"directDelivery": {"sourceAddress": "mx.example"}}, "$.directDelivery.sourceAddress"),
        ({"directDelivery": {"sourceAddress": "::1", "ipVersion": "4"}}, "ipVersion allows no such address"),
    ],
)
def test_a_source_address_that_cannot_be_is_refused(relay: Relay, settings: dict, complaint: str) -> None:
    relay.configure(settings)
    done = relay.mailer_send("--once")
    assert done.returncode == 78
    assert complaint in done.stderr


def test_a_provider_gets_no_more_sessions_than_it_allows(relay: Relay) -> None:
    with Server() as server:
        provider = {"host": LOOPBACK, "port": server.port, "maxSessions": 1}
        relay.configure(forward_to(forwardProviders=[provider]))
        for _ in range(20):
            queue(relay.spool)
        relay.mailer_send("--once")
        assert len(server.messages) == 20
        assert len(server.sessions) == 1


def test_transactions_keep_to_the_rate(relay: Relay) -> None:
    """Five at 600 a minute take four pauses of 0.1 s."""
    with Server() as server:
        provider = {"host": LOOPBACK, "port": server.port}
        relay.configure(forward_to(forwardProviders=[provider], sending={"ratePerHop": 600}))
        for _ in range(5):
            queue(relay.spool)
        began = time.monotonic()
        relay.mailer_send("--once")
        assert time.monotonic() - began > 0.4
        assert len(server.messages) == 5


def test_no_session_is_kept_waiting_for_the_rate_to_allow_a_transaction(relay: Relay) -> None:
    """Two a second, to a server that hangs up on who is silent for half of that: no trouble, no breaker."""
    with Server(patience=0.25) as server:
        provider = {"host": LOOPBACK, "port": server.port}
        relay.configure(forward_to(forwardProviders=[provider], sending={"ratePerHop": 120}))
        for _ in range(4):
            queue(relay.spool)
        relay.mailer_send("--once")
        assert len(server.messages) == 4


def test_messages_that_wait_for_a_black_hole_are_deferred_with_the_first() -> None:
    """Ten messages, two sessions at a time, and 1.1 s of waiting for a banner: once, not five times."""

    async def one(pool: Pool, server: Server) -> Status:
        letter = Letter()
        async with pool.session(hop_to(server)) as session:
            [outcome] = await session.transact(letter, letter.envelope.recipients, lambda _: None)
        return outcome.status

    async def main(server: Server) -> list[Status | BaseException]:
        timeouts = LONG.__class__(banner=1.1)
        async with Pool(lambda hop: Session.open(hop, timeouts), limit=2) as pool:
            return await asyncio.gather(*[one(pool, server) for _ in range(10)], return_exceptions=True)

    with Server({"banner": HANG}) as server:
        results = asyncio.run(main(server))
        assert [type(result) for result in results] == [HopTrouble] * 10
        assert len(server.sessions) == 2


DEMANDS = [
    TlsPolicy(destination="Plain.example", level=TlsLevel.NONE),
    TlsPolicy(destination=".bank.example", level=TlsLevel.VERIFY),
    TlsPolicy(destination="b\u00fccher.example", level=TlsLevel.VERIFY),
    TlsPolicy(destination="Host_1.b\u00fccher.example", level=TlsLevel.VERIFY),
    TlsPolicy(destination=".b\u00fccher.example", level=TlsLevel.NONE),
    TlsPolicy(destination="*", level=TlsLevel.ENCRYPT),
]


@pytest.mark.parametrize(
    ("destination", "level"),
    [
        ("plain.EXAMPLE", TlsLevel.NONE),
        ("a.b.bank.example", TlsLevel.VERIFY),
        ("bank.example", TlsLevel.ENCRYPT),
        ("notbank.example", TlsLevel.ENCRYPT),
        # A domain is the same in each of its spellings.
        ("xn--bcher-kva.example", TlsLevel.VERIFY),
        ("m\u00fcller.b\u00fccher.example", TlsLevel.NONE),
        ("xn--mller-kva.XN--BCHER-KVA.example", TlsLevel.NONE),
        ("host_1.B\u00dcCHER.example", TlsLevel.VERIFY),
        ("b\u00fccher.example.", TlsLevel.VERIFY),
    ],
)
def test_the_first_policy_that_matches_counts(destination: str, level: TlsLevel) -> None:
    assert demand_of(DEMANDS, destination).level is level
    assert demand_of((), destination).level is TlsLevel.MAY


def policies(internet: Internet, relay: Relay, level: str, destination: str = "one.test", **more: str) -> str:
    """One message to an exchanger under a policy; the `tls` of its outcome, or the words of its deferral."""
    policy = {"destination": destination, "level": level, **more}
    internet.dns.zone[("one.test", "MX")] = ["10 mx1.one.test."]
    relay.configure(internet.settings() | {"tlsPolicies": [policy], "security": {"logAllEmails": True}})
    message = queue(relay.spool, [BOB])
    assert relay.mailer_send("--once").returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    last = left.events[-1]
    assert last["event"] in {"sent", "deferred"}, last
    return f"{last.get('tls', '')}" if last["event"] == "sent" else f"deferred: {last['reply']}"


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("level", "more", "certificate", "said"),
    [
        ("may", {}, "elsewhere.test", "TLSv1.3 TLS_AES_256_GCM_SHA384 not verified"),
        ("none", {}, "mx1.one.test", ""),
        ("encrypt", {}, "elsewhere.test", "TLSv1.3 TLS_AES_256_GCM_SHA384 not verified"),
        ("verify", {}, "mx1.one.test", "TLSv1.3 TLS_AES_256_GCM_SHA384 verified"),
        ("verify", {}, "elsewhere.test", "deferred: certificate verify failed: Hostname mismatch"),
        (
            "verify",
            {"verifyName": "elsewhere.test"},
            "elsewhere.test",
            "TLSv1.3 TLS_AES_256_GCM_SHA384 verified",
        ),
    ],
)
def test_a_policy_says_what_tls_a_destination_must_have(
    relay: Relay, internet: Internet, level: str, more: dict, certificate: str, said: str
) -> None:
    internet.server(MX1, tls=certified(certificate))
    got = policies(internet, relay, level, **more)
    assert got.startswith(said) if said else got == ""


@pytest.mark.parametrize("level", ["encrypt", "verify"])
def test_mail_that_must_be_encrypted_waits_where_tls_is_not_offered_or_broken(
    relay: Relay, internet: Internet, level: str
) -> None:
    server = internet.server(MX1)
    assert policies(internet, relay, level) == "deferred: STARTTLS is not offered"
    server.tls = certified("mx1.one.test")
    server.script["handshake"] = b"no TLS here\r\n"
    assert "TLS handshake failed" in policies(internet, relay, level)
    assert server.messages == []


def test_a_policy_of_one_destination_says_nothing_about_another(relay: Relay, internet: Internet) -> None:
    server = internet.server(MX2)
    relay.configure(internet.settings() | {"tlsPolicies": [{"destination": "one.test", "level": "encrypt"}]})
    message = queue(relay.spool, [EVE])
    relay.mailer_send("--once")
    assert found(relay.spool, message) is None
    assert len(server.messages) == 1


@pytest.mark.parametrize("level", ["none", "may", "encrypt", "verify"])
def test_no_policy_makes_a_password_travel_in_clear(relay: Relay, elsewhere: str, level: str) -> None:
    with Server(auth="PLAIN LOGIN CRAM-MD5", host=elsewhere) as server:
        provider = {"host": server.host, "port": server.port, **LOGIN}
        policy = {"destination": server.host, "level": level}
        relay.configure(forward_to(forwardProviders=[provider], tlsPolicies=[policy]))
        message = queue(relay.spool)
        relay.mailer_send("--once")
        assert server.messages == []
        assert not any(b"AUTH" in command for session in server.sessions for command in session.commands)
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert left.events[-1]["hop"] == at(server).replace(LOOPBACK, elsewhere)


def test_an_answer_of_dns_is_asked_for_once_while_it_is_valid(relay: Relay, internet: Internet) -> None:
    internet.dns.ttl = 300
    server = internet.server(MX1)
    relay.configure(internet.settings(ipVersion="4"))
    for _ in range(30):
        queue(relay.spool, [BOB])
    relay.mailer_send("--once")
    assert len(server.messages) == 30
    assert sorted(internet.dns.asked) == [("mx1.one.test", "A", "udp"), ("one.test", "MX", "udp")]


def test_that_there_is_no_such_record_is_not_believed_for_ever(internet: Internet) -> None:
    """RFC 2308 5: without the zone's SOA beside it nobody knows for how long."""
    from mailer.send.resolver import DnsResolver  # noqa: PLC0415

    async def main() -> list[list[tuple[int, str]]]:
        resolver = DnsResolver([str(internet.dns)], 5)
        none = await resolver.mail_exchangers("two.test")
        internet.dns.zone[("two.test", "MX")] = ["10 mx2.one.test."]
        return [none, await resolver.mail_exchangers("two.test")]

    assert asyncio.run(main()) == [[], [(10, "mx2.one.test")]]
