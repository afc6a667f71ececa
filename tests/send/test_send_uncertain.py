"""When the final reply is lost it is not known whether the mail was delivered; the journal says just that."""

import json
import threading
import time
from pathlib import Path

import pytest
from outbound.hostile import DROP, RESET, Server, per_address
from outbound.sending import MESSAGE, REFUSED, TO, at, forward_to, found, outcomes, queue
from testbed.capability import tracer
from testbed.faketime import faketime
from testbed.relay import Relay

from mailer.mail.clock import rfc3339
from mailer.spool.directory import Spool
from mailer.spool.journal import Event
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage

ANN, BOB = "ann@example.net", "bob@example.net"
NEXT_RUN = faketime("+3m")


@pytest.mark.fault_row(14)
@pytest.mark.parametrize("loss", [DROP, RESET], ids=["closed", "reset"])
def test_a_connection_lost_after_the_dot_is_uncertain_and_goes_to_no_other_provider(
    loss: object, relay: Relay
) -> None:
    with Server({"dot": loss}) as first, Server() as second:
        relay.configure(forward_to(first, second))
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert len(first.messages) == 1
        assert second.sessions == []
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert outcomes(left) == [("committing", (TO,)), ("uncertain", (TO,))]
    assert {event["hop"] for event in left.events[1:]} == {at(first)}


def test_the_next_attempt_is_at_the_hop_that_may_have_it(relay: Relay) -> None:
    with Server() as before, Server({"dot": [DROP, None]}) as doubtful:
        relay.configure(forward_to(doubtful))
        message = queue(relay.spool)
        relay.mailer_send()
        relay.configure(forward_to(before, doubtful))
        assert relay.mailer_send("--once", under=NEXT_RUN).returncode == 0
        assert before.sessions == []
        assert doubtful.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None


def test_doubt_outlives_trouble_at_that_hop(relay: Relay) -> None:
    """The hop that may have delivered it is down at the next attempt: still no other may have it."""
    with Server() as other:
        with Server({"dot": DROP}) as doubtful:
            relay.configure(forward_to(doubtful, other))
            message = queue(relay.spool)
            relay.mailer_send()
        relay.mailer_send("--once", under=NEXT_RUN)
        relay.mailer_send("--once", under=faketime("+30m"))
        assert other.sessions == []
    left = found(relay.spool, message)
    assert left is not None
    assert left.statuses == {TO: "uncertain"}
    assert [event["reply"] for event in left.events[-2:]] == [REFUSED, REFUSED]
    assert {event["hop"] for event in left.events[1:]} == {at(doubtful)}


def test_only_the_recipients_that_the_server_had_accepted_are_uncertain(relay: Relay) -> None:
    with Server({"rcpt": per_address({ANN: "450 4.2.2 full"}), "dot": DROP}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, [ANN, BOB])
        relay.mailer_send()
    left = found(relay.spool, message)
    assert left is not None
    assert left.statuses == {ANN: "deferred", BOB: "uncertain"}


@pytest.mark.fault_row(15)
def test_a_drop_after_the_final_250_is_sent(relay: Relay) -> None:
    """What follows the reply to the dot changes nothing."""
    with Server({"after": RESET}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        relay.mailer_send()
        assert server.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None


def test_under_the_policy_hold_a_doubtful_message_is_held_at_once(relay: Relay) -> None:
    with Server({"dot": DROP}) as server:
        relay.configure(forward_to(server, uncertain="hold"))
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses) == ("hold", {TO: "uncertain"})
    assert f"the final reply of {at(server)} was lost" in str(left.events[-1]["reason"])


def test_a_doubtful_message_that_the_operator_lets_out_of_hold_is_sent(relay: Relay) -> None:
    with Server({"dot": [DROP, None]}) as server:
        relay.configure(forward_to(server, uncertain="hold"))
        message = queue(relay.spool)
        relay.mailer_send()
        assert relay.mailer("spool", "retry", message).returncode == 0
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None


def test_under_the_policy_hold_a_runner_that_dies_after_the_dot_leaves_its_message_to_the_operator(
    relay: Relay, tmp_path: Path
) -> None:
    with Server() as server:
        relay.configure(forward_to(server, uncertain="hold"))
        message = queue(relay.spool)
        killed_at_the_outcome = (tracer(), "-f", "-o", str(tmp_path / "trace"), "-e", "trace=fdatasync", "-e",
                                 "inject=fdatasync:signal=KILL:when=1")  # fmt: skip
        assert relay.mailer_send("--once", under=killed_at_the_outcome).returncode != 0
        assert relay.mailer_send("--once").returncode == 0
        assert server.messages == []
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses) == ("hold", {TO: "uncertain"})


def test_the_ledger_tells_of_doubt_as_the_journal_does(relay: Relay) -> None:
    with Server({"dot": DROP}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        relay.mailer_send()
    [ledger] = (relay.spool / "log").glob("*.jsonl")
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    [told] = [line for line in lines if line["id"] == message]
    assert (told["event"], told["to"], told["relay"]) == ("uncertain", [TO], at(server))


def interrupted(spool: Path, message_id: str, *events: Event) -> None:
    """Leave a message in `new/` as a power cut may: with these lines, and its claim undone."""
    with Spool.open(spool) as opened, LockedMessage.lock(opened, Spot(Place.NEW, message_id)) as locked:
        locked.append(*events)


def committing(hop: str) -> Event:
    return Event(at=rfc3339(time.time()), event="committing", to=(TO,), hop=hop, attempt=1)


def test_a_refusal_after_the_dot_leaves_no_doubt_whatever_happens_next(relay: Relay) -> None:
    """The first provider said no to the whole message, then the runner died: the second may have it."""
    with Server({"dot": "550 5.7.1 not you"}) as first, Server() as second:
        relay.configure(forward_to(first, second))
        message = queue(relay.spool)
        refused = Event(at=rfc3339(time.time()), event="trouble", to=(TO,), hop=at(first), attempt=1)
        interrupted(relay.spool, message, committing(at(first)), refused)
        assert relay.mailer_send("--once").returncode == 0
        assert second.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None


def test_under_hold_the_journal_decides_and_not_the_directory(relay: Relay) -> None:
    """A power cut undoes the renames of a claim, not the synced line that says the message was going out."""
    with Server() as hop:
        relay.configure(forward_to(hop, uncertain="hold"))
        message = queue(relay.spool)
        interrupted(relay.spool, message, committing(at(hop)))
        relay.mailer_send("--once")
        locked = found(relay.spool, message)
        assert locked is not None
        assert locked.place == "hold"
        assert hop.messages == []
        relay.mailer("spool", "release", message)
        relay.mailer_send("--once")
        assert hop.delivered() == [(TO, MESSAGE)]


def test_under_hold_mail_in_doubt_is_held_although_its_recipient_is_on_the_suppression_list(
    relay: Relay,
) -> None:
    with Server() as hop:
        relay.configure(forward_to(hop, uncertain="hold"))
        message = queue(relay.spool)
        interrupted(relay.spool, message, committing(at(hop)))
        relay.mailer("suppress", "add", TO)
        told = relay.mailer("route", "--id", message).stdout
        assert f"not sent: it would be held: the final reply of {at(hop)} was lost" in told
        assert "tried again there" not in told
        relay.mailer_send("--once")
        locked = found(relay.spool, message)
        assert locked is not None
        assert (locked.place, locked.statuses) == ("hold", {TO: "uncertain"})
        relay.mailer("spool", "release", message)
        relay.mailer_send("--once")
        waiting = found(relay.spool, message)
        assert waiting is not None
        assert str(waiting.events[-1]["reply"]).startswith("suppression list: 550 5.7.1")
        assert "not sent: it stays in doubt" in relay.mailer("route", "--id", message).stdout
        assert hop.messages == []


def test_max_seconds_cuts_nothing_off(relay: Relay) -> None:
    """The time is over while the server thinks about the dot: the runner waits for its answer."""
    answering = threading.Event()

    def think(_session: object, _line: bytes) -> str:
        answering.wait(2)  # Longer than the limit and the grace together.
        return "250 2.0.0 taken"

    with Server({"dot": think}) as hop:
        relay.configure(forward_to(hop, sending={"shutdownGrace": "100ms"}))
        message = queue(relay.spool)
        assert relay.mailer_send("--once", "--max-seconds", "500ms").returncode == 0
        assert hop.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None


def test_mail_in_doubt_is_held_when_its_provider_is_gone(relay: Relay) -> None:
    """To retry all that waits is no decision to send it twice; to release it is, until it arrives."""
    with Server({"dot": DROP}) as gone, Server({"rcpt": ["450 4.2.0 greylisted", None]}) as other:
        relay.configure(forward_to(gone))
        message = queue(relay.spool)
        relay.mailer_send()
        relay.configure(forward_to(other))
        relay.mailer("spool", "retry", "--all")
        assert relay.mailer_send("--once").returncode == 0
        left = found(relay.spool, message)
        assert left is not None
        assert (left.place, left.statuses) == ("hold", {TO: "uncertain"})
        assert f"{at(gone)} may have delivered it" in str(left.events[-1]["reason"])
        assert "mailer spool release" in str(left.events[-1]["reason"])
        assert other.sessions == []
        relay.mailer("spool", "release", message)
        relay.mailer_send("--once")
        relay.mailer_send("--once", under=faketime("+1h"))
        assert other.delivered() == [(TO, MESSAGE)]
    assert found(relay.spool, message) is None
