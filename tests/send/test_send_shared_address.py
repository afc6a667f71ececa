"""Two accounts at one provider: which of them may have delivered a message is not forgotten."""

from base64 import b64decode

import pytest
from outbound.bounces import notifications
from outbound.hostile import DROP, Server, per_address
from outbound.sending import MESSAGE, SENDER, TO, at, forward_to, found, queue
from testbed.faketime import faketime
from testbed.ports import LOOPBACK
from testbed.relay import Relay

from mailer.mail.clock import rfc3339
from mailer.spool.directory import Spool
from mailer.spool.journal import Event
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage

LOGINS = ("ann@example.com", "bob")


def accounts(server: Server, *logins: str, **settings: object) -> dict[str, object]:
    providers = [
        {"host": LOOPBACK, "port": server.port} | ({"username": login, "password": "secret"} if login else {})
        for login in logins
    ]
    return forward_to(server, **settings) | {"forwardProviders": providers}


def logins(server: Server) -> list[str]:
    """Who logged in, by session; empty: nobody."""
    given = [
        next((line.split()[2] for line in session.commands if line.startswith(b"AUTH PLAIN")), b"")
        for session in server.sessions
    ]
    return [b64decode(each).split(b"\0")[1].decode() if each else "" for each in given]


@pytest.mark.parametrize("order", [LOGINS, LOGINS[::-1], ("", "bob"), ("bob", "")])
@pytest.mark.parametrize("doubtful", [0, 1], ids=["the first", "the second"])
def test_a_message_in_doubt_is_tried_again_with_the_login_that_handed_it_over(
    relay: Relay, order: tuple[str, str], doubtful: int
) -> None:
    script = {"dot": [DROP, None], "mail": ["452 4.3.1 no room", None] if doubtful else [None]}
    with Server(script, auth="PLAIN") as server:
        relay.configure(accounts(server, *order))
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        left = found(relay.spool, message)
        assert left is not None
        assert left.statuses == {TO: "uncertain"}
        assert logins(server)[-1] == order[doubtful]
        assert relay.mailer_send("--once", under=faketime("+10m")).returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]
        assert logins(server)[-1] == order[doubtful]


def test_a_hop_that_an_older_journal_names_without_a_login_is_still_found(relay: Relay) -> None:
    with Server(auth="PLAIN") as server, Server() as other:
        relay.configure(accounts(server, *LOGINS))
        message = queue(relay.spool)
        with Spool.open(relay.spool) as spool, LockedMessage.lock(spool, Spot(Place.NEW, message)) as locked:
            locked.append(Event(at=rfc3339(0), event="committing", to=(TO,), hop=at(server), attempt=1))
        both = accounts(server, *LOGINS)
        first = {"host": LOOPBACK, "port": other.port}
        relay.configure(both | {"forwardProviders": [first, *both["forwardProviders"]]})  # type: ignore[misc]
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]
        assert other.sessions == []


def test_the_operator_sees_the_login_and_the_sender_does_not(relay: Relay) -> None:
    with Server({"rcpt": per_address({TO: "550 5.1.1 no such user"})}, auth="PLAIN") as server:
        relay.configure(accounts(server, *LOGINS, bounce="sender"))
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        [told] = notifications(server)
    assert f"at {LOGINS[0]}@{at(server)}" in relay.mailer("spool", "why", message).stdout
    assert told.to == [SENDER]
    assert told.recipients[TO]["Remote-MTA"] == "dns; [127.0.0.1]"
    assert f"{at(server)} said: 550" in told.words
    assert LOGINS[0] not in told.raw.decode()


def test_a_single_account_is_named_as_ever(relay: Relay) -> None:
    with Server({"dot": DROP}, auth="PLAIN") as server:
        relay.configure(accounts(server, LOGINS[0]))
        message = queue(relay.spool)
        relay.mailer_send("--once")
    left = found(relay.spool, message)
    assert left is not None
    assert left.events[-1]["hop"] == at(server)
