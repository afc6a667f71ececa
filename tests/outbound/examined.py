"""What `mailer doctor` finds about a host, its providers and its domains."""

import datetime as dt
import json

from testbed.name_server import NameServer
from testbed.relay import PASSWORD, Relay

from mailer.mail.finding import Grade
from outbound.sending import forward_to

SECRET = "open sesame, and nobody else"
PAST = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
EGRESS = "192.0.2.25"
NO_DNS = {"nameservers": ["127.0.0.1:1"], "timeout": "20ms"}
"""Nobody answers there, which says nothing about providers: those are looked up as the system does."""
HOST = "mx.example.com"


def doctor(relay: Relay, *arguments: str, code: int | None = None) -> dict[tuple[str, str], dict[str, str]]:
    """What doctor found, by group and thing; of several with one name the worst."""
    done = relay.mailer("doctor", "--json", *arguments)
    assert done.stderr == ""
    if code is not None:
        assert done.returncode == code, done.stdout
    order = list(map(str, (Grade.SKIPPED, Grade.OK, Grade.UNKNOWN, Grade.WARNING, Grade.PROBLEM)))
    lines = sorted(map(json.loads, done.stdout.splitlines()), key=lambda line: order.index(line["grade"]))
    for line in lines:
        assert line.keys() == {"group", "what", "about", "grade", "found", "todo"}
        assert SECRET not in str(line)
        assert PASSWORD not in str(line)
        # The configuration's own messages say what to do themselves.
        assert line["todo"] or line["grade"] in {"ok", "skipped"} or line["what"] == "config", line
    return {(line["group"], line["what"]): line for line in lines}


def problems(found: dict[tuple[str, str], dict[str, str]]) -> set[tuple[str, str]]:
    return {where for where, line in found.items() if line["grade"] == "problem"}


def through(relay: Relay, port: int, host: str = "localhost", **settings) -> None:
    provider = {"name": "p", "host": host, "port": port, "username": "u", "password": SECRET, **settings}
    relay.configure(forward_to(forwardProviders=[provider], dns=NO_DNS))


def examined(relay: Relay, server: NameServer, *arguments: str, code: int | None = None):
    return doctor(relay, "--resolver", str(server), "--egress", EGRESS, *arguments, code=code)
