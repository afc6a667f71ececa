"""`routes`: the first rule that matches says where a recipient's mail goes, at each attempt anew."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outbound.hostile import DROP, HANG, Server
from outbound.rule_mail import ANN, BOB, CID, DAN, provider
from outbound.sending import MESSAGE, TO, found, queue
from testbed.faketime import faketime
from testbed.ports import LOOPBACK, free_port
from testbed.relay import Relay
from testbed.waiting import until

from mailer.config.checks import refuse_to_send
from mailer.config.load import load
from mailer.config.routing import HeaderMatch, RouteRule
from mailer.config.warnings import warnings
from mailer.send.routes.rules import Mail, Rules

WITH_FIELD = b"X-Kind: Big\r\n Letter\r\n" + MESSAGE
NEXT_RUN = faketime("+3m")
LATER = faketime("+6d")


def first(rules: list[RouteRule], mail: Mail, address: str) -> int | None:
    at = Rules(rules).first(mail, address)
    return None if at == len(rules) else at


def mail(sender: str = "app@example.com", *, user: str = "", header: bytes = b"") -> Mail:
    return Mail(sender, user, lambda: header)


@pytest.mark.parametrize(
    ("pattern", "matched", "passed"),
    [
        (
            "App@Example.com",
            ["app@example.com", "APP@EXAMPLE.COM"],
            ["b@example.com", "app@x.example.com", ""],
        ),
        ("example.com", ["app@example.com", "x@EXAMPLE.com"], ["app@x.example.com", "a@anexample.com", ""]),
        ("@example.com", ["app@example.com"], ["app@x.example.com", ""]),
        (".example.com", ["a@x.example.com", "a@x.y.Example.com"], ["a@example.com", "a@x-example.com", ""]),
        ("*.example.com", ["a@x.example.com"], ["a@example.com", ""]),
        ("*", ["a@b.example"], [""]),
        ("<>", [""], ["a@b.example"]),
        ('"a@b"@example.com', ['"a@b"@example.com'], ["b@example.com"]),
        ("\u212aelvin@b.example", [], ["kelvin@b.example"]),
        (
            "a@b\u00fccher.example",
            ["a@xn--bcher-kva.example", '"a"@B\u00dccher.example'],
            ["a@bucher.example"],
        ),
        (".b\u00fccher.example", ["a@x.xn--bcher-kva.example"], ["a@xn--bcher-kva.example"]),
    ],
)
def test_a_sender_matches_as_an_address_a_domain_or_below_one(
    pattern: str, matched: list[str], passed: list[str]
) -> None:
    rules = [RouteRule(sender=pattern, local=True)]
    assert [sender for sender in matched + passed if first(rules, mail(sender), BOB) == 0] == matched


@pytest.mark.parametrize(
    ("pattern", "matched", "passed"),
    [
        ("b.example", [BOB, "bob@B.EXAMPLE", '"@"@b.example'], ["bob@x.b.example", "postmaster"]),
        (".d.example", [DAN], ["dan@d.example", "postmaster"]),
        ("*", [BOB, DAN], ["postmaster"]),
        (("a.example", ".d.example"), [ANN, DAN], [BOB]),
        ("b\u00fccher.example", ["b@xn--bcher-kva.example", "b@B\u00dcCHER.example"], ["b@bucher.example"]),
        ("xn--bcher-kva.example", ["b@b\u00fccher.example"], ["b@x.b\u00fccher.example"]),
        ("*.b\u00fccher.example", ["b@x.xn--bcher-kva.example"], ["b@xn--bcher-kva.example"]),
        ("[192.0.2.1]", ["bob@[192.0.2.1]"], ["bob@192.0.2.1"]),
    ],
)
def test_a_recipient_matches_by_its_domain(pattern: Any, matched: list[str], passed: list[str]) -> None:
    rules = [RouteRule(recipient_domain=pattern, local=True)]
    assert [address for address in matched + passed if first(rules, mail(), address) == 0] == matched


@pytest.mark.parametrize(
    ("wanted", "head", "fits"),
    [
        ({"value": "big letter"}, b"x-kind: Big\r\n Letter\r\n", True),
        ({"value": "big"}, b"X-Kind: Big\r\n Letter\r\n", False),
        ({"value": "b"}, b"X-Kind: a\r\nTo: x\r\nX-Kind : b\r\n", True),
        ({"value": "b"}, b"X-Kinds: b\r\nSubject: X-Kind: b\r\n", False),
        ({"matches": "*"}, b"X-Kind:\r\n", True),
        ({"matches": "*"}, b"X-Kin: x\r\n", False),
        ({"matches": "a*b*c"}, b"X-Kind: a-b-c\r\n", True),
        ({"matches": "a*b*c"}, b"X-Kind: a-c-b\r\n", False),
        ({"matches": "ab*ba"}, b"X-Kind: aba\r\n", False),
        ({"matches": "gr\u00fcn*"}, "X-Kind: gr\u00fcne\r\n".encode(), True),
    ],
)
def test_a_header_field_matches_by_its_value_unfolded(wanted: dict[str, str], head: bytes, fits: int) -> None:
    rules = [RouteRule(header=HeaderMatch(name="X-Kind", **wanted), local=True)]
    assert (first(rules, mail(header=head), BOB) == 0) == fits


def test_a_header_that_is_too_large_gets_past_no_rule_that_holds_mail() -> None:
    field, entry = HeaderMatch(name="X-Kind", value="a"), Mail("app@example.com", "", lambda: None)
    rules = [
        RouteRule(header=field, local=True),
        RouteRule(header=field, recipient_domain="a.example", hold="look"),
        RouteRule(header=field, hold="look"),
    ]
    assert [first(rules, entry, address) for address in (ANN, BOB)] == [1, 2]


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_stars_stand_for_any_text(pattern: str, text: str) -> None:
    def slow(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(slow(pattern[1:], text[at:]) for at in range(len(text) + 1))
        return text[:1] == pattern[0] and slow(pattern[1:], text[1:])

    rules = [RouteRule(header=HeaderMatch(name="X", matches=pattern or "a"), local=True)]
    matched = first(rules, mail(header=b"X: " + text.encode() + b"\r\n"), BOB) == 0
    assert matched is slow(pattern or "a", text)


def test_all_conditions_must_hold_and_the_header_is_read_last_and_once() -> None:
    reads = []

    def header() -> bytes:
        reads.append(1)
        return b"X: 1\r\n"

    asked = Mail("app@example.com", "ann", header)
    by_header = HeaderMatch(name="X", value="2")
    rules = [
        RouteRule(user="bob", header=by_header, local=True),
        RouteRule(sender="other.example", header=by_header, local=True),
        RouteRule(recipient_domain="a.example", header=by_header, local=True),
        RouteRule(user="ann", sender="example.com", recipient_domain="b.example", local=True),
    ]
    assert [first(rules, asked, address) for address in (BOB, CID)] == [3, None]
    assert not reads
    assert first(rules, asked, ANN) is None
    assert first(rules, asked, ANN) is None
    assert len(reads) == 1


@contextmanager
def providers(relay: Relay, *rules: dict[str, Any], **more: Any) -> Iterator[dict[str, Server]]:
    """Two providers, tried in this order by mail that no rule matches."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Server()) for name in ("one", "two")}
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [provider(name, server) for name, server in servers.items()],
                "routes": list(rules),
                **more,
            }
        )
        yield servers


def got(server: Server) -> set[str]:
    return {to for to, _ in server.delivered()}


def test_the_recipients_of_one_message_go_different_ways(relay: Relay) -> None:
    """By domain, by user, by a header field, and into the Maildir; a dry run says the same beforehand."""
    rules = (
        {"recipientDomain": "a.example", "provider": "two"},
        {"recipientDomain": "b.example", "local": True},
        {"user": "ann", "header": {"name": "X-Kind", "value": "big letter"}, "provider": "two"},
    )
    with providers(relay, *rules) as servers:
        of_two = queue(relay.spool, [ANN, BOB, CID], WITH_FIELD)
        by_header = queue(relay.spool, [DAN], WITH_FIELD, user="ann")
        plain = queue(relay.spool, [DAN], user="ann")
        rows = {
            row["id"]: {each["address"]: (each["rule"], each["through"]) for each in row["recipients"]}
            for row in map(json.loads, relay.mailer_send("--dry-run", "--json").stdout.splitlines())
        }
        usual = ("", [str(f"{LOOPBACK}:{server.port}") for server in servers.values()])
        two = [f"{LOOPBACK}:{servers['two'].port}"]
        assert rows == {
            of_two: {ANN: ("routes[0]", two), BOB: ("routes[1]", ["local"]), CID: usual},
            by_header: {DAN: ("routes[2]", two)},
            plain: {DAN: usual},
        }
        assert relay.mailer_send().returncode == 0
        assert (got(servers["one"]), got(servers["two"])) == ({CID, DAN}, {ANN, DAN})
        assert len(servers["one"].messages) == len(servers["two"].messages) == 2
    [kept] = relay.delivered()
    assert b"Delivered-To: bob@b.example\n" in kept
    assert not any(found(relay.spool, each) for each in (of_two, by_header, plain))


@pytest.mark.parametrize("fallback", [False, True])
def test_trouble_goes_on_to_others_only_where_the_rule_allows_it(relay: Relay, fallback: bool) -> None:  # noqa: FBT001 - a column
    with providers(relay) as servers:
        down = provider("down", free_port())
        relay.configure(
            {
                "forwardProviders": [*(provider(*each) for each in servers.items()), down],
                "routes": [{"recipientDomain": "b.example", "provider": "down", "fallback": fallback}],
            }
        )
        message = queue(relay.spool, [BOB])
        relay.mailer_send()
        assert got(servers["one"]) == ({BOB} if fallback else set())
        assert not servers["two"].sessions
    left = found(relay.spool, message)
    assert left is None if fallback else left is not None and left.statuses == {BOB: "deferred"}


def test_what_a_rule_holds_waits_for_the_operator_and_is_not_held_again(relay: Relay) -> None:
    with providers(relay, {"sender": "app@example.com", "hold": "until the lawyers have seen it"}) as servers:
        message = queue(relay.spool)
        relay.mailer_send()
        held = found(relay.spool, message)
        assert held is not None
        assert (held.place, held.events[-1]["reason"]) == (
            "hold",
            "routes[0]: until the lawyers have seen it",
        )
        assert "until the lawyers have seen it" in relay.mailer("spool", "why", message).stdout
        assert not servers["one"].sessions
        relay.mailer("spool", "release", message)
        relay.mailer_send()
        assert got(servers["one"]) == {TO}


def test_a_message_is_held_once_its_other_recipients_are_done(relay: Relay) -> None:
    with providers(relay, {"recipientDomain": "a.example", "hold": "no mail to A"}) as servers:
        servers["one"].script = {"rcpt": ["250 ok", "451 4.7.1 greylisted", "250 ok"]}
        message = queue(relay.spool, [ANN, BOB, CID])
        relay.mailer_send()
        waiting = found(relay.spool, message)
        assert waiting is not None
        assert waiting.place == "retry"
        assert waiting.statuses == {ANN: "deferred", BOB: "sent", CID: "deferred"}
        relay.mailer_send(under=LATER)
        held = found(relay.spool, message)
        assert held is not None
        assert held.place == "hold"
        assert held.statuses == {ANN: "deferred", BOB: "sent", CID: "sent"}


def test_mail_of_a_provider_that_is_switched_off_waits_however_old_it_becomes(relay: Relay) -> None:
    rule = {"recipientDomain": "b.example", "provider": "one"}
    direct = {"enabled": True, "port": free_port()}
    with providers(relay, rule, forwardSMTP=False, directDelivery=direct, bounce="sender") as servers:
        message = queue(relay.spool, [BOB])
        for moment in ((), LATER, faketime("+12d"), faketime("+18d")):
            relay.mailer_send(under=moment)
        left = found(relay.spool, message)
        assert left is not None
        assert left.place == "retry"
        reason = "routes[0] leads to the provider one, and forwardSMTP is off"
        assert {event.get("reply") for event in left.events if event["event"] == "deferred"} == {reason}
        assert len([*(relay.spool / "new").iterdir()]) == 0, "nobody is told of a bounce"
        relay.configure({"forwardSMTP": True})
        relay.mailer_send(under=faketime("+24d"))
        assert got(servers["one"]) == {BOB}


def test_queued_mail_goes_by_the_rules_of_the_day_but_a_doubtful_one_stays(relay: Relay) -> None:
    with providers(relay) as servers:
        servers["one"].script = {
            "rcpt": ["451 4.7.1 greylisted", "250 ok"],
            "dot": [DROP, "250 ok"],
        }
        message = queue(relay.spool, [ANN, BOB])
        relay.mailer_send()
        relay.configure({"routes": [{"provider": "two"}]})
        relay.mailer_send(under=NEXT_RUN)
        assert (got(servers["one"]), got(servers["two"])) == ({BOB}, {ANN})
    assert found(relay.spool, message) is None


def test_a_provider_by_rule_gets_mail_at_once_where_the_rest_goes_direct(relay: Relay) -> None:
    """Direct delivery lets one message at a time go to a domain that has not answered yet: not these."""
    rule = {"recipientDomain": "b.example", "provider": "one"}
    direct = {"enabled": True, "port": free_port()}
    with providers(relay, rule, directDelivery=direct, sending={"shutdownGrace": 0}) as servers:
        servers["one"].script = {"dot": HANG}
        queued = [queue(relay.spool, [BOB]) for _ in range(3)]
        with relay.watch():
            until(lambda: len(servers["one"].sessions) == len(queued), "three sessions at the same time")


GOOD = {"provider": "one"}


@pytest.mark.parametrize(
    ("rule", "where", "what"),
    [
        ({"sender": "a@b.example"}, "$.routes[0]", "has none"),
        ({"provider": "one", "local": True}, "$.routes[0]", "has provider and local"),
        ({"provider": "tow"}, "$.routes[0].provider", "there is: one, two"),
        ({"local": True, "fallback": True}, "$.routes[0].fallback", '"provider" or "direct"'),
        ({**GOOD, "sender": "a b"}, "$.routes[0].sender", "an address, a domain"),
        ({**GOOD, "sender": ["<>", "*@example.com"]}, "$.routes[0].sender", "an address, a domain"),
        ({**GOOD, "recipientDomain": "a@b.example"}, "$.routes[0].recipientDomain", "takes a domain"),
        ({**GOOD, "recipientDomain": "*b.example"}, "$.routes[0].recipientDomain", "takes a domain"),
        ({**GOOD, "header": {"name": "X"}}, "$.routes[0].header", '"value" or "matches"'),
        (
            {**GOOD, "header": {"name": "X:", "value": ""}},
            "$.routes[0].header",
            "not a possible name of a header",
        ),
        ({**GOOD, "user": []}, "$.routes[0].user", "at least 1"),
        ({**GOOD, "recipient": "x"}, "$.routes[0].recipient", "recipientDomain"),
    ],
)
def test_a_bad_rule_is_refused_with_its_place(
    relay: Relay, rule: dict[str, Any], where: str, what: str
) -> None:
    with providers(relay, rule):
        done = relay.mailer("config", "check")
    assert done.returncode == 78
    [line] = [line for line in done.stderr.splitlines() if where in line]
    assert what in line


@pytest.mark.parametrize(
    ("rules", "more", "said"),
    [
        (
            [GOOD, {"sender": "<>", "local": True}],
            {},
            ["$.routes[1]: is never reached: routes[0] comes first, and"],
        ),
        (
            [
                {"sender": "a.example", "provider": "one"},
                {"sender": ["a.example"], "user": "x", "provider": "two"},
            ],
            {},
            ["$.routes[1]: is never reached: routes[0] comes first; move it up"],
        ),
        ([{"sender": "a.example", "provider": "one"}, GOOD], {}, []),
        ([GOOD], {"forwardSMTP": False}, ["$.routes[0].provider: is not used while forwardSMTP is off"]),
    ],
)
def test_a_rule_that_no_mail_comes_to_is_warned_of(
    tmp_path: Path, rules: list[dict[str, Any]], more: dict[str, Any], said: list[str]
) -> None:
    config = tmp_path / "config.json"
    config.touch(mode=0o600)
    servers = [provider("one", 2500), provider("two", 2501)]
    config.write_text(json.dumps({"forwardSMTP": True, "forwardProviders": servers, "routes": rules, **more}))
    loaded = load(config, {})
    assert refuse_to_send(loaded) == ()
    told = [str(each) for each in warnings(loaded) if each.path.startswith("$.routes")]
    assert len(told) == len(said)
    assert all(line.startswith(words) for line, words in zip(told, said, strict=True))
