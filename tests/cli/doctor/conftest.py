"""A relay that delivers directly, and everything in DNS as it should be."""

import json
from collections.abc import Iterator

import pytest
from outbound.examined import EGRESS, HOST
from outbound.hostile import Server
from outbound.signing import DOMAIN
from testbed.name_server import NameServer, txt
from testbed.relay import Relay

ZONE = {
    (DOMAIN, "TXT"): [txt(f"v=spf1 ip4:{EGRESS} -all")],
    (f"_dmarc.{DOMAIN}", "TXT"): [txt("v=DMARC1; p=reject")],
    (DOMAIN, "MX"): [f"10 {HOST}."],
    (HOST, "A"): [EGRESS, "127.0.0.1"],
    ("25.2.0.192.in-addr.arpa", "PTR"): [f"{HOST}."],
}


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer(ZONE) as running:
        yield running


@pytest.fixture
def exchanger() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def direct(relay: Relay, server: NameServer, exchanger: Server) -> Relay:
    """A relay that delivers directly and signs, and everything in DNS as it should be."""
    relay.configure(
        {
            "hostname": HOST,
            "directDelivery": {
                "enabled": True,
                "port": exchanger.port,
                "allowPrivate": True,
                "ipVersion": "4",
            },
            "dkim": {"enabled": True, "domain": DOMAIN},
            "dns": {"timeout": "1s"},
        }
    )
    # An exchanger at our own egress address would be asked first, and nobody is there.
    server.zone[HOST, "A"] = [EGRESS]
    server.zone["in.example.com", "A"] = ["127.0.0.1"]
    server.zone[DOMAIN, "MX"] = ["10 in.example.com."]
    assert relay.mailer("dkim", "keygen", "--domain", DOMAIN).returncode == 0
    record = json.loads(relay.mailer("dkim", "record", "--json").stdout)
    server.zone[record["name"], "TXT"] = [txt(record["value"])]
    return relay
