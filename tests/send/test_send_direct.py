"""Direct delivery: which servers DNS names for a domain, which are tried, and what each answer means."""

import ssl
import subprocess
import threading
from collections.abc import Iterator

import pytest
import trustme
from outbound.hostile import DROP, HANG, Server, per_address, reached
from outbound.internet import Internet, run, words
from outbound.sending import found, outcomes, queue
from outbound.two_domains import BOB, EVE, MX1, MX2, ZONE
from testbed.capability import network_of_its_own


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet.of(ZONE) as made:
        yield made


def test_the_preferred_exchanger_gets_the_mail(relay, internet):
    first, second = internet.server(MX1), internet.server(MX2)
    assert run(relay, internet) is None
    assert [message.recipients for message in first.messages] == [[BOB]]
    assert not second.sessions


def test_the_next_exchanger_is_tried_when_the_preferred_one_is_down(relay, internet):
    second = internet.server(MX2)
    assert run(relay, internet) is None
    assert [message.recipients for message in second.messages] == [[BOB]]


def test_a_domain_without_mx_gets_its_mail_at_its_own_address(relay, internet):
    server = internet.server(MX2)
    assert run(relay, internet, [EVE]) is None
    assert [message.recipients for message in server.messages] == [[EVE]]


def test_recipients_of_several_domains_are_served_apart(relay, internet):
    """One domain's trouble is not another's: the first is down, the second delivered, in the same attempt."""
    internet.dns.zone[("one.test", "MX")] = ["10 mx1.one.test."]
    server = internet.server(MX2)
    message = run(relay, internet, [BOB, EVE])
    assert [sent.recipients for sent in server.messages] == [[EVE]]
    assert message.place == "retry"
    assert sorted(outcomes(message)) == [
        ("committing", (EVE,)),
        ("deferred", (BOB,)),
        ("sent", (EVE,)),
    ]
    assert "Connection refused" in words(message)


def test_a_null_mx_bounces_with_the_code_of_its_rfc(relay, internet):
    internet.dns.zone[("one.test", "MX")] = ["0 ."]
    message = run(relay, internet)
    assert message.place == "failed"
    assert "556 5.1.10 one.test accepts no mail (null MX)" in words(message)


def test_a_domain_that_does_not_exist_bounces(relay, internet):
    message = run(relay, internet, ["x@nowhere.test"])
    assert message.place == "failed"
    assert "550 5.1.2 nowhere.test: the domain does not exist (NXDOMAIN)" in words(message)


@pytest.mark.parametrize("fault", ["broken", "silent", "denies_all"])
def test_dns_trouble_waits_and_never_falls_to_the_address_record(relay, internet, fault):
    setattr(internet.dns, fault, True)
    server = internet.server(MX2)
    message = run(relay, internet, [EVE])
    assert message.place == "retry"
    assert "MX lookup for two.test" in words(message)
    assert not server.sessions


def test_an_alias_is_followed_and_a_loop_of_them_is_bounded(relay, internet):
    internet.dns.zone |= {
        ("alias.test", "CNAME"): ["two.test."],
        ("loop.test", "CNAME"): ["pool.test."],
        ("pool.test", "CNAME"): ["loop.test."],
    }
    server = internet.server(MX2)
    message = run(relay, internet, ["a@alias.test", "l@loop.test"])
    assert [sent.recipients for sent in server.messages] == [["a@alias.test"]]
    assert message.place == "retry"
    assert "MX lookup for loop.test" in words(message)


def test_a_private_exchanger_is_refused_unless_the_operator_allows_it(relay, internet):
    server = internet.server(MX1), internet.server(MX2)
    message = run(relay, internet, allowPrivate=False)
    assert message.place == "retry"
    assert "is not a public address, and directDelivery.allowPrivate is off" in words(message)
    assert not server[0].sessions
    assert not server[1].sessions


def test_an_address_literal_is_its_own_exchanger(relay, internet):
    server = internet.server(MX1)
    assert run(relay, internet, [f"bob@[{MX1}]"]) is None
    assert [message.recipients for message in server.messages] == [[f"bob@[{MX1}]"]]


def test_a_postmaster_without_a_domain_is_this_hosts(relay, internet):
    server = internet.server(MX1)
    assert run(relay, internet, ["postmaster"], ehloDomain="One.test") is None
    assert [message.rcpt_lines for message in server.messages] == [[b"RCPT TO:<postmaster>"]]


def test_a_refusal_by_the_recipients_server_bounces_at_once(relay, internet):
    first, second = internet.server(MX1, {"rcpt": "550 5.1.1 no such user"}), internet.server(MX2)
    message = run(relay, internet)
    assert message.place == "failed"
    assert "550 5.1.1 no such user" in words(message)
    assert len(first.sessions) == 1
    assert not second.sessions


def test_a_lost_reply_is_asked_again_at_the_same_exchanger_only(relay, internet):
    internet.dns.zone[("one.test", "MX")] = ["10 mx1.one.test.", "10 mx2.one.test."]
    first, second = internet.server(MX1, {"dot": DROP}), internet.server(MX2, {"dot": DROP})
    message = run(relay, internet)
    assert message.place == "retry"
    assert outcomes(message)[-1] == ("uncertain", (BOB,))
    relay.mailer("spool", "retry", "--all")
    relay.mailer_send("--once")
    relay.mailer("spool", "retry", "--all")
    relay.mailer_send("--once")
    assert sorted((len(first.messages), len(second.messages))) == [0, 3]


def again(relay, times=1):
    """The operator retries at once, so often."""
    for _ in range(times):
        assert relay.mailer("spool", "retry", "--all").returncode == 0
        assert relay.mailer_send("--once").returncode == 0


def test_doubt_outlives_trouble_at_that_exchanger(relay, internet):
    """It hangs up at the next attempt; the other exchanger works all the time."""
    first = internet.server(MX1, {"dot": [DROP, None], "banner": [None, DROP, None]})
    second = internet.server(MX2)
    message = run(relay, internet)
    again(relay)
    assert found(relay.spool, message.name).statuses == {BOB: "uncertain"}
    again(relay)
    assert found(relay.spool, message.name) is None
    assert [taken.accepted for taken in first.messages] == [False, True]
    assert second.sessions == []


def test_doubt_outlives_the_exchanger_until_the_operator_lets_the_mail_go(relay, internet):
    """A provider at port 25 that was removed looks the same: no exchanger of the domain."""
    internet.server(MX1, {"dot": DROP})
    second = internet.server(MX2)
    message = run(relay, internet)
    internet.dns.zone[("one.test", "MX")] = ["10 mx2.one.test."]
    again(relay)
    doubtful = found(relay.spool, message.name)
    assert doubtful.statuses == {BOB: "uncertain"}
    assert "is not an exchanger of one.test" in doubtful.events[-1]["reply"]
    assert second.sessions == []
    relay.mailer("spool", "hold", message.name)
    relay.mailer("spool", "retry", message.name)
    relay.mailer_send("--once")
    assert [taken.recipients for taken in second.messages] == [[BOB]]


def test_a_domain_that_is_gone_says_nothing_of_what_its_exchanger_may_have(relay, internet):
    server = internet.server(MX1, {"dot": [DROP, None]})
    message = run(relay, internet)
    records = {key: internet.dns.zone.pop(key) for key in list(internet.dns.zone) if key[0] == "one.test"}
    again(relay)
    doubtful = found(relay.spool, message.name)
    assert doubtful.statuses == {BOB: "uncertain"}
    assert doubtful.events[-1]["reply"].startswith("one.test: 550 5.1.2 one.test: the domain does not exist")
    internet.dns.zone |= records
    again(relay)
    assert found(relay.spool, message.name) is None
    assert [taken.accepted for taken in server.messages] == [False, True]


def test_the_exchanger_that_may_have_a_message_is_found_again_among_many(relay, internet):
    """They are as good as one another and come in random order, and no more than five of them are tried."""
    hosts = [f"127.0.0.{n}" for n in range(60, 72)]
    internet.dns.zone["one.test", "MX"] = [f"10 mx{n}.test." for n in range(12)]
    internet.dns.zone |= {(f"mx{n}.test", "A"): [host] for n, host in enumerate(hosts)}
    servers = [internet.server(host, {"dot": lambda session, _: DROP}) for host in hosts]
    relay.configure(internet.settings())
    to = [f"r{n}@one.test" for n in range(12)]
    for recipient in to:
        queue(relay.spool, [recipient])
    relay.mailer_send("--once")
    again(relay)
    for recipient in to:
        copies = [[m.recipients for m in server.messages].count([recipient]) for server in servers]
        assert sorted(copies) == [0] * 11 + [2]


def test_each_recipient_in_doubt_is_tried_where_its_own_copy_may_be(relay, internet):
    """The first exchanger lost Ann's reply and had no room for Bob; the second one lost Bob's."""
    ann = "ann@one.test"
    internet.dns.zone["one.test", "MX"] = ["10 mx1.one.test.", "20 mx2.one.test."]
    full = per_address({BOB: "452 4.3.1 no room"})
    first = internet.server(MX1, {"rcpt": [None, full, None], "dot": [DROP, None]})
    second = internet.server(MX2, {"dot": [DROP, None]})
    message = run(relay, internet, [ann, BOB])
    first.script["connect"] = DROP
    again(relay)
    del first.script["connect"]
    assert found(relay.spool, message.name).statuses == {ann: "uncertain", BOB: "uncertain"}
    again(relay)
    assert found(relay.spool, message.name) is None
    assert [taken.recipients for taken in first.messages] == [[ann], [ann]]
    assert [taken.recipients for taken in second.messages] == [[BOB], [BOB]]


def test_what_an_exchanger_decided_is_on_record_before_another_one_is_asked(relay, internet):
    """Bob is told that there is no room; Ann has the mail, and whatever happens must not get it again."""
    ann = "ann@one.test"
    first = internet.server(MX1, {"rcpt": per_address({BOB: "452 4.3.1 no room"})})
    second = internet.server(MX2)
    message = run(relay, internet, [ann, BOB])
    assert message.statuses == {ann: "sent", BOB: "deferred"}
    assert second.sessions == []
    assert [taken.recipients for taken in first.messages] == [[ann]]


@pytest.mark.parametrize(
    ("refusal", "place"),
    [
        ("554 5.7.1 <bob@one.test>: Relay access denied", "failed"),
        ("550 relay not permitted", "failed"),
        ("530 5.7.0 Authentication required", "retry"),
        ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "retry"),
        ("550 5.7.1 bob@one.test: your hourly limit is exceeded", "retry"),
    ],
)
def test_an_exchanger_that_does_not_relay_is_not_the_recipients(relay, internet, refusal, place):
    """There is no account of ours that could be set right; what is said of our host or pace may pass."""
    internet.server(MX1, {"rcpt": refusal})
    internet.server(MX2, {"rcpt": refusal})
    assert run(relay, internet).place == place


THREE = {
    ("one.test", "MX"): ["1 mx1.one.test.", "2 mx2.one.test.", "3 mx3.one.test."],
    ("mx3.one.test", "A"): ["127.0.0.13"],
}


def test_the_journal_records_each_exchanger_that_failed(relay, internet):
    internet.dns.zone |= THREE
    internet.server(MX2, {"dot": "421 4.3.2 going down"})
    third = internet.server("127.0.0.13")
    relay.configure({"security": {"logAllEmails": True}})
    message = run(relay, internet)
    kinds = ["trouble", "committing", "trouble", "committing", "sent"]
    assert outcomes(message) == [(kind, (BOB,)) for kind in kinds]
    hops = [f"mx{n}.one.test[127.0.0.1{n}]:{internet.port}" for n in (1, 2, 2, 3, 3)]
    assert [event["hop"] for event in message.events[1:]] == hops
    assert words(message).endswith("Connection refused |  | 421 4.3.2 going down |  | 250 2.0.0 queued")
    assert len(third.messages) == 1


def test_an_exchanger_that_refused_after_the_dot_leaves_no_doubt_while_the_next_one_is_tried(relay, internet):
    """The run is ended while the third does not answer: nothing is uncertain, and nothing is held."""
    internet.dns.zone |= THREE
    waiting = threading.Event()
    internet.server(MX2, {"dot": "421 4.3.2 going down"})
    internet.server("127.0.0.13", {"mail": reached(waiting, HANG)})
    relay.configure(internet.settings() | {"uncertain": "hold", "sending": {"shutdownGrace": 0}})
    message = queue(relay.spool, [BOB])
    with relay.watch():
        assert waiting.wait(60)
    left = found(relay.spool, message)
    assert (left.place, outcomes(left)[-1]) == ("new", ("trouble", (BOB,)))


def test_an_exchanger_that_has_no_room_for_anybody_leaves_the_mail_to_the_next_one(relay, internet):
    internet.server(MX1, {"mail": "452 4.3.1 no room"})
    second = internet.server(MX2)
    assert run(relay, internet) is None
    assert [taken.recipients for taken in second.messages] == [[BOB]]


@pytest.mark.parametrize("step", ["banner", "mail", "dot"])
def test_an_exchangers_own_trouble_brings_the_provider_in_only_after_retry_count(relay, internet, step):
    internet.dns.zone["one.test", "MX"] = ["10 mx1.one.test."]
    internet.server(MX1, {step: "452 4.3.1 no room"})
    with Server() as provider:
        relay.configure(
            {"forwardSMTP": True, "forwardProviders": [{"host": "127.0.0.1", "port": provider.port}]}
        )
        message = run(relay, internet, retryCount=2)
        assert message.statuses == {BOB: "deferred"}
        assert provider.sessions == []
        again(relay)
        assert [taken.recipients for taken in provider.messages] == [[BOB]]


def test_an_exchanger_that_refuses_this_host_for_good_brings_the_provider_in_at_once(relay, internet):
    """An address on a block list is not cured by a few more attempts."""
    internet.dns.zone["one.test", "MX"] = ["10 mx1.one.test."]
    internet.server(MX1, {"rcpt": "550 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org"})
    with Server() as provider:
        relay.configure(
            {"forwardSMTP": True, "forwardProviders": [{"host": "127.0.0.1", "port": provider.port}]}
        )
        assert run(relay, internet, retryCount=3) is None
        assert [taken.recipients for taken in provider.messages] == [[BOB]]


@pytest.mark.parametrize(
    ("forbid", "address"),
    [
        ("ip route add prohibit 192.0.2.9/32", "192.0.2.9"),
        ("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6", "2001:db8::9"),
    ],
)
def test_what_this_machine_forbids_towards_exchangers_is_cured_by_a_provider(relay, forbid, address):
    """EACCES and EADDRNOTAVAIL: a firewall of ours, or IPv6 that is switched off; not our disk or memory."""
    kind = "AAAA" if ":" in address else "A"
    with network_of_its_own(), Internet.of({("one.test", kind): [address]}) as internet, Server() as provider:
        subprocess.run(["sh", "-c", forbid], check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
        relay.configure(
            {"forwardSMTP": True, "forwardProviders": [{"host": "127.0.0.1", "port": provider.port}]}
        )
        assert run(relay, internet, retryCount=1) is None
        assert [message.recipients for message in provider.messages] == [[BOB]]


def test_a_server_whose_tls_is_broken_gets_its_mail_in_clear_and_the_journal_says_so(relay, internet):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx1.one.test").configure_cert(context)
    server = internet.server(MX1, {"handshake": b"no TLS here\r\n"}, tls=context)
    relay.configure(internet.settings() | {"security": {"logAllEmails": True}})
    message_id = queue(relay.spool, [BOB])
    assert relay.mailer_send("--once").returncode == 0
    assert [message.recipients for message in server.messages] == [[BOB]]
    (sent,) = [event for event in found(relay.spool, message_id).events if event["event"] == "sent"]
    assert sent["tls"].startswith("none: TLS handshake failed")


def test_after_retry_count_attempts_the_provider_gets_the_mail(relay, internet):
    with Server() as provider:
        relay.configure(
            internet.settings(retryCount=2)
            | {"forwardSMTP": True, "forwardProviders": [{"host": "127.0.0.1", "port": provider.port}]}
        )
        message_id = queue(relay.spool, [BOB])
        relay.mailer_send("--once")
        assert found(relay.spool, message_id).place == "retry"
        assert not provider.sessions
        relay.mailer("spool", "retry", "--all")
        relay.mailer_send("--once")
        assert found(relay.spool, message_id) is None
        assert [message.recipients for message in provider.messages] == [[BOB]]
