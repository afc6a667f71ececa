"""Direct delivery with a name server that nobody here wrote: NSD, with zones such as operators make them."""

import re

from outbound.hostile import Server
from outbound.internet import Internet
from outbound.sending import found, queue
from testbed.capability import ipv6_loopback
from testbed.faketime import faketime
from testbed.nsd import Nsd
from testbed.relay import Relay

FIRST, SECOND, SIX = "127.0.0.51", "127.0.0.52", "::1"
ZONES = {
    "two.test": f"@ MX 10 first\n@ MX 20 second\nfirst A {FIRST}\nsecond A {SECOND}\n"
    f"www CNAME two.test.\n* MX 10 second\nmail CNAME first\nodd MX 10 mail\nodd A {SECOND}\n",
    "alias.test": "www CNAME www.two.test.\ndangling CNAME nowhere.six.test.\n",
    "implicit.test": f"@ A {SECOND}\n",
    "null.test": f"@ MX 0 .\n@ A {SECOND}\n",
    "six.test": f"@ MX 10 mx\nmx AAAA {SIX}\n",
    "implicit-six.test": f"@ AAAA {SIX}\n",
    "xn--bcher-kva.test": "@ MX 10 first.two.test.\n",
    "broken.test": None,
    "loop.test": "@ MX 10 ring\nring CNAME rang\nrang CNAME ring\n",
    "lost.test": f"@ MX 10 nowhere\n@ A {SECOND}\n",
    "number.test": f"@ MX 10 {SECOND}.\n@ A {SECOND}\n",
    "empty.test": '@ TXT "nothing here"\n',
    "crowd.test": "".join(f"@ MX {n + 10} a-rather-long-name-{n}\n" for n in range(60))
    + f"@ MX 5 first\nfirst A {FIRST}\n",
}
SENT = {
    FIRST: ["two", "www.two", "www.alias", "bücher", "odd.two", "crowd"],
    SECOND: ["implicit", "any.thing.two"],
    SIX: ["six", "implicit-six"],
}
BOUNCED = {
    "null": "556 5.1.10 null.test accepts no mail (null MX)",
    "nowhere.six": "550 5.1.2 nowhere.six.test: the domain does not exist (NXDOMAIN)",
    "dangling.alias": "550 5.1.2 dangling.alias.test: the domain does not exist (NXDOMAIN)",
}
DEFERRED = {
    "broken": "MX lookup for broken.test: name servers failed: SERVFAIL",
    "not-served": "MX lookup for not-served.test: name servers failed: REFUSED",
    "loop": "address lookup for ring.loop.test: ",
    "lost": "address lookup for nowhere.lost.test: the domain does not exist (NXDOMAIN)",
    "number": f"address lookup for {SECOND}: name servers failed: REFUSED",
    "empty": "no mail exchanger of empty.test has an address",
}


def of(*names: str) -> list[str]:
    return [f"{who}@{name}.test" for name in names for who in ("ann", "bob")]


def recipients(server: Server) -> list[str]:
    return [recipient for message in server.messages for recipient in message.recipients]


def test_each_recipient_has_the_fate_that_its_zone_gives_it(relay: Relay) -> None:
    with ipv6_loopback(), Internet.served_by(Nsd(ZONES)) as internet:
        servers = {address: internet.server(address) for address in SENT}
        relay.configure(internet.settings())
        sent = of(*(name for names in SENT.values() for name in names))
        message = queue(relay.spool, [*sent, *of(*BOUNCED), *of(*DEFERRED)])
        done = relay.mailer_send("--once")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    for address, names in SENT.items():
        assert sorted(recipients(servers[address])) == sorted(of(*names)), address
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert left.statuses == (
        dict.fromkeys(sent, "sent")
        | dict.fromkeys(of(*BOUNCED), "bounced")
        | dict.fromkeys(of(*DEFERRED), "deferred")
    )
    for kind, words in (("bounced", BOUNCED), ("deferred", DEFERRED)):
        for name, said in words.items():
            [event] = [e for e in left.events if e["event"] == kind and e["to"] == of(name)]
            assert re.match(re.escape(said), str(event["reply"])), event


def test_a_zone_that_is_mended_gets_its_mail_at_the_next_attempt(relay: Relay) -> None:
    with Internet.served_by(Nsd({"one.test": None})) as internet:
        relay.configure(internet.settings())
        message = queue(relay.spool, ["bob@one.test"])
        assert relay.mailer_send("--once").returncode == 0
        left = found(relay.spool, message)
        assert left is not None
        assert left.statuses == {"bob@one.test": "deferred"}
    with Internet.served_by(Nsd({"one.test": f"@ MX 10 mx\nmx A {FIRST}\n"})) as internet:
        server = internet.server(FIRST)
        relay.configure(internet.settings())
        assert relay.mailer_send("--once", under=faketime("+3m")).returncode == 0
        assert recipients(server) == ["bob@one.test"]
    assert found(relay.spool, message) is None
