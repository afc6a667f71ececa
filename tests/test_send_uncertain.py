"""When the final reply is lost nobody knows whether the mail was delivered; the journal says just that."""

import json
from pathlib import Path

import pytest
from hostile import DROP, RESET, Server, per_address
from sending import MESSAGE, REFUSED, TO, at, forward_to, found, outcomes, queue
from testbed.relay import Relay

ANN, BOB = "ann@example.net", "bob@example.net"
NEXT_RUN = ("faketime", "-f", "+3m")


@pytest.mark.parametrize("loss", [DROP, RESET], ids=["closed", "reset"])
def test_a_connection_lost_after_the_dot_is_uncertain_and_goes_to_no_other_provider(
    loss: object, relay: Relay
) -> None:
    """FAULTS row 14."""
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
        relay.mailer_send("--once", under=("faketime", "-f", "+30m"))
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


def test_a_drop_after_the_final_250_is_sent(relay: Relay) -> None:
    """FAULTS row 15: what follows the reply to the dot changes nothing."""
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
        killed_at_the_outcome = ("strace", "-f", "-o", str(tmp_path / "trace"), "-e", "trace=fdatasync", "-e",
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
    [ledger] = (relay.spool / "log").iterdir()
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    [told] = [line for line in lines if line["id"] == message]
    assert (told["event"], told["to"], told["relay"]) == ("uncertain", [TO], at(server))
