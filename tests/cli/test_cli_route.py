"""`mailer route` says where a mail would go; and that is where `mailer-send` takes it."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest
from outbound.hostile import DROP, Server
from outbound.rule_mail import ANN, BOB, CID, DAN, provider
from outbound.sending import MESSAGE, found, queue
from outbound.signing import write_key
from testbed.ports import LOOPBACK, free_port
from testbed.relay import Relay

from mailer.cli.route.explanation import Explainer
from mailer.cli.route.subject import queued
from mailer.config.load import load
from mailer.send.dkim.keys import KeyType
from mailer.spool.directory import Spool

ADDRESSES = [ANN, BOB, CID, DAN, "postmaster"]
SENDERS = ["app@example.com", "news@x.example.com", ""]
USERS = ["", "shop", "ann"]
KINDS = ["", "X-Kind: big\r\n", "X-Kind: Big Letter\r\n"]

CONDITIONS: dict[str, list[Any]] = {
    "sender": ["app@example.com", "example.com", ".example.com", "*", "<>"],
    "recipientDomain": ["a.example", "*.d.example", ["b.example", "c.example"], "*"],
    "user": ["shop", ["ann", "shop"]],
    "header": [{"name": "X-Kind", "value": "big"}, {"name": "x-kind", "matches": "big*"}],
}
GOALS: list[dict[str, Any]] = [
    {"provider": "one"},
    {"provider": "two"},
    {"provider": "three", "fallback": True},
    {"local": True},
    {"hold": "the reason"},
]


def some_rules(draw: Random) -> list[dict[str, Any]]:
    keys = [draw.sample([*CONDITIONS], draw.choice((1, 2, 2, 3))) for _ in range(8)]
    return [{key: draw.choice(CONDITIONS[key]) for key in some} | draw.choice(GOALS) for some in keys]


@pytest.mark.parametrize("seed", range(3))
def test_mail_goes_where_route_says(relay: Relay, seed: int) -> None:
    draw = Random(seed)
    rules, order = some_rules(draw), draw.sample(["one", "two", "three"], 3)
    mails = [
        (draw.choice(SENDERS), draw.sample(ADDRESSES, 2), draw.choice(USERS), draw.choice(KINDS))
        for _ in range(40)
    ]
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Server()) for name in order}
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [provider(*each) for each in servers.items()],
                "routes": rules,
                "batchDelay": 0,
            }
        )
        said: set[tuple[int, str, str]] = set()
        ids = []
        for number, (sender, to, user, field) in enumerate(mails):
            content = f"Subject: {number}\r\n{field}\r\n".encode() + MESSAGE
            ids.append(queue(relay.spool, to, content, sender=sender, user=user))
        with Spool.open(relay.spool) as spool:
            explainer = Explainer(load(relay.config, {}).config, spool, time.time())
            for number, message in enumerate(ids):
                for told in explainer.explain(queued(spool, message)):
                    said.add((number, told.address, told.hops[0].name if told.hops else "hold"))
        assert len({way for _, _, way in said}) >= 3
        assert relay.mailer_send().returncode == 0
        done = {
            (int(body.partition(b"Subject: ")[2].partition(b"\r\n")[0]), to, name)
            for name, server in servers.items()
            for to, body in server.delivered()
        }
    for kept in relay.delivered():
        head = kept.partition(b"\n\n")[0].decode().splitlines()
        [number] = [int(line.removeprefix("Subject: ")) for line in head if line.startswith("Subject: ")]
        to = [line.removeprefix("Delivered-To: ") for line in head if line.startswith("Delivered-To: ")]
        done |= {(number, each, "local") for each in to}
    for number, message in enumerate(ids):
        if left := found(relay.spool, message):
            assert left.place == "hold"
            done |= {(number, to, "hold") for to, status in left.statuses.items() if status != "sent"}
    assert done == said


def test_route_says_that_an_interface_is_always_verified(relay: Relay) -> None:
    """Also without a username: the keys may be of the environment or of the instance's role."""
    there, here = {"api": "ses", "region": "eu-central-1"}, f"http://{LOOPBACK}:{free_port()}"
    keys = {"username": "AKIAEXAMPLE", "password": "pw-correct-horse"}
    for interface, said in (
        (there, "ses over HTTPS; the certificate must be valid for email.eu-central-1.amazonaws.com"),
        (there | keys, "ses over HTTPS; the certificate must be valid for email.eu-central-1.amazonaws.com"),
        (there | keys | {"apiUrl": here}, "ses over HTTP, in clear"),
    ):
        relay.configure({"forwardSMTP": True, "forwardProviders": [interface]})
        Spool.open(relay.spool, create=True).close()
        asked = relay.mailer("route", "--from", "app@example.com", "--to", BOB, "--json")
        assert json.loads(asked.stdout)["hops"][0]["tls"] == said


def test_route_names_hops_health_tls_rewriting_signature_and_time(relay: Relay, tmp_path: Path) -> None:
    key = write_key(tmp_path, "mail", KeyType.ED25519).private_key_path
    bulk = {
        **provider("bulk", free_port(), username="acct", password="pw-correct-horse"),
        "sender": "relay@example.com",
        "rewriteFrom": "replace",
    }
    relay.configure(
        {
            "forwardSMTP": True,
            "forwardProviders": [bulk, provider("plain", free_port(), dkim=False)],
            "routes": [
                {"user": "shop", "header": {"name": "X-Kind", "value": "a"}, "provider": "bulk"},
                {"recipientDomain": "b.example", "hold": "not there"},
                {"recipientDomain": "d.example", "direct": True, "fallback": True},
            ],
            "tlsPolicies": [{"destination": "d.example", "level": "verify", "verifyName": "mx.d.example"}],
            "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "200ms"},
            "dkim": {"enabled": True, "domain": "example.com", "privateKeyPath": str(key)},
        }
    )
    Spool.open(relay.spool, create=True).close()
    mail = "From: x@y.example\nX-Kind: a\n\nhello\n"
    order = ("route", "--from", "app@example.com", "--to", CID)
    by_rule = relay.mailer(*order, "--user", "shop", "-", given=mail)
    assert by_rule.returncode == 0, by_rule.stderr
    for line in (
        CID + ': routes[0] matches ({"user":["shop"],"header":{"name":"X-Kind","value":"a"}})',
        f"    1. bulk ({LOOPBACK}:{bulk['port']} as acct): in use",
        f"       STARTTLS when it is offered; the certificate must be valid for {LOOPBACK}",
        "       sender relay@example.com; From becomes relay@example.com (replace)",
        "       signed by d=example.com s=mail",
        "    next at the next run",
    ):
        assert line in by_rule.stdout.splitlines()
    asked = relay.mailer(*order, "--to", BOB, "--to", "dan@d.example", "--json")
    plain, held, direct = map(json.loads, asked.stdout.splitlines())
    assert (plain["rule"], [hop["name"] for hop in plain["hops"]]) == ("", ["bulk", "plain"])
    assert plain["hops"][1]["dkim"] == []
    assert (held["rule"], held["hops"], held["reason"]) == ("routes[1]", [], "routes[1]: not there")
    assert [hop["name"] for hop in direct["hops"]] == ["direct", "bulk", "plain"]
    assert direct["hops"][0]["tls"].endswith("the certificate must be valid for mx.d.example")
    assert "MX lookup for d.example" in direct["hops"][0]["trouble"]


def test_a_recipient_on_the_suppression_list_goes_nowhere(relay: Relay) -> None:
    Spool.open(relay.spool, create=True).close()
    assert relay.mailer("suppress", "add", ANN).returncode == 0
    asked = relay.mailer("route", "--json", "--from", "app@example.com", "--to", ANN, "--to", BOB)
    listed, other = map(json.loads, asked.stdout.splitlines())
    assert (listed["hops"], [hop["name"] for hop in other["hops"]]) == ([], ["local"])
    assert listed["reason"].startswith(f"it would bounce: 550 5.7.1 {ANN} is on this host's suppression list")


def test_a_queued_message_is_explained_as_it_stands(relay: Relay) -> None:
    with Server({"dot": [DROP, "250 ok"]}) as one:
        relay.configure({"forwardSMTP": True, "forwardProviders": [provider("one", one)]})
        doubtful, held = queue(relay.spool, [ANN]), queue(relay.spool, [BOB])
        relay.mailer("spool", "hold", held)
        relay.mailer_send()
        relay.configure({"routes": [{"local": True}]})
        told = json.loads(relay.mailer("route", "--json", "--id", doubtful).stdout)
        assert (told["rule"], [hop["relay"] for hop in told["hops"]]) == ("", [f"{LOOPBACK}:{one.port}"])
        assert told["next"]
        assert "tried again there and nowhere else" in relay.mailer("route", "--id", doubtful).stdout
        relay.configure({"forwardProviders": [provider("two", free_port())]})
        gone = relay.mailer("route", "--id", doubtful).stdout
        assert f"not sent: it would be held: {LOOPBACK}:{one.port} may have delivered it" in gone
        assert "tried again there" not in gone
        relay.mailer("spool", "hold", doubtful)
        relay.mailer("spool", "release", doubtful)
        assert "1. local" in relay.mailer("route", "--id", doubtful).stdout
        waiting = relay.mailer("route", "--id", held).stdout
        assert "not sent: held by" in waiting
        assert "after `mailer spool release`" in waiting
        assert relay.mailer("route", "--id", "01JD0M3Q5V8Z7X2C4B6N8M0K1J").returncode == 66


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", ANN), "--from and --to"),
        (("--from", "a b", "--to", ANN), "--from"),
        (("--from", "a@b.example", "--to", "<>"), "--to"),
        (("--id", "01JD0M3Q", "--to", ANN), "--id excludes the other options"),
    ],
)
def test_a_wrong_order_is_refused_with_its_fault(relay: Relay, arguments: tuple[str, ...], said: str) -> None:
    done = relay.mailer("route", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
