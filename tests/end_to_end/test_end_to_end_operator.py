"""Delivery breaks at night: what the operator reads is what happened, and what he does mends it.

Mail comes in through the relay, is sent by runs as cron starts them, and is looked at with `mailer spool`.
"""

import json
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from outbound.hostile import DROP, HANG, Server, per_address
from outbound.sending import MESSAGE, SENDER, TO, at, forward_to
from testbed.faketime import faketime
from testbed.relay import Relay
from testbed.waiting import until

NEXT_RUN = faketime("+3m")
"""A run after the first pause of `retry.schedule`."""
ANN, BOB, DAN, EVE = "ann@example.net", "bob@example.net", "dan@example.net", "eve@example.org"


class Operator:
    """Somebody at the command line of a relay that forwards to one provider."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    def accept(self, *recipients: str) -> str:
        """Have an application submit a message; return the id that it was told."""
        with self.relay.connect() as client:
            client.mail(SENDER)
            for recipient in recipients or (TO,):
                client.rcpt(recipient)
            code, reply = client.data(MESSAGE)
        assert code == 250
        return reply.split()[-1].decode()

    def run(self, **how: Any) -> None:
        assert self.relay.mailer_send("--once", **how).returncode == 0

    def spool(self, *arguments: str, code: int = 0) -> str:
        """What `mailer spool ARGUMENTS` prints; fails if it does not end with `code`."""
        done = self.relay.mailer("spool", *arguments)
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout

    def record(self, message: str) -> dict[str, Any]:
        """The one line of `ls --json` about a message."""
        records = [json.loads(line) for line in self.spool("ls", "--json").splitlines()]
        [record] = [record for record in records if record["id"] == message]
        return record

    def line(self, message: str) -> str:
        """The one line of `ls` about a message."""
        [line] = [line for line in self.spool("ls").splitlines() if line.startswith(message)]
        return line

    def statuses(self, message: str) -> dict[str, str]:
        return {who["address"]: who["status"] for who in self.record(message)["recipients"]}

    def is_gone(self, message: str) -> bool:
        return message not in self.spool("ls")


@pytest.fixture
def operator(relay: Relay) -> Iterator[Operator]:
    with relay.serve():
        yield Operator(relay)


def with_login(server: Server) -> dict[str, Any]:
    login = {"host": "127.0.0.1", "port": server.port, "username": "relay", "password": "expired"}
    return forward_to(forwardProviders=[login])


TEMPORARY: dict[str, tuple[Callable[[], Server], Callable[[Server], dict[str, Any]], str]] = {
    "full mailbox": (
        lambda: Server({"rcpt": "450 4.2.2 The mailbox is over quota"}),
        forward_to,
        "450 4.2.2 The mailbox is over quota",
    ),
    "greylisting": (
        lambda: Server({"dot": "451-4.7.1 Greylisted,\n451 4.7.1 come back in 5 minutes"}),
        forward_to,
        "451 4.7.1 Greylisted, come back in 5 minutes",
    ),
    "maintenance": (
        lambda: Server({"banner": "421 4.3.2 Down for maintenance"}),
        forward_to,
        "421 4.3.2 Down for maintenance",
    ),
    "expired password": (
        lambda: Server({"auth": "535 5.7.8 Username and Password not accepted"}, auth="PLAIN"),
        with_login,
        "535 5.7.8 Username and Password not accepted",
    ),
}


@pytest.mark.parametrize("trouble", TEMPORARY)
def test_temporary_trouble_is_quoted_everywhere_and_ends_when_it_is_mended(
    trouble: str, relay: Relay, operator: Operator
) -> None:
    broken, settings, words = TEMPORARY[trouble]
    with broken() as server:
        relay.configure(settings(server))
        message = operator.accept()
        operator.run()
        record = operator.record(message)
        assert record["recipients"] == [{"address": TO, "status": "deferred", "reply": words}]
        assert (record["state"], record["attempts"]) == ("retry", 1)
        assert record["next"] > record["received"]
        for told in (operator.line(message), operator.spool("show", message), operator.spool("why", message)):
            assert "deferred" in told
            assert words in told
        sessions = len(server.sessions)
        operator.run()
        assert len(server.sessions) == sessions, "it was tried before it was due"
        server.script.clear()
        operator.run(under=NEXT_RUN)
        assert server.delivered()[-1][0] == TO
        assert operator.is_gone(message)
    story = operator.spool("why", message)
    assert "Sent to every recipient" in story
    in_order(story, "accepted", words, "sent")


def in_order(story: str, *steps: str) -> None:
    """The steps stand in the story's timeline (what follows its first empty line) one after the other."""
    timeline = story.partition("\n\n")[2]
    assert re.search(".*?".join(map(re.escape, steps)), timeline, re.DOTALL), timeline


def test_a_provider_that_is_down_is_reported_in_the_systems_words_and_retry_sends_immediately(
    relay: Relay, operator: Operator, free_port: int
) -> None:
    relay.configure(forward_to(free_port))
    messages = [operator.accept(), operator.accept()]
    for message in messages:
        assert operator.record(message)["state"] == "new"
        assert operator.statuses(message) == {TO: "pending"}
    operator.run()
    for message in messages:
        [recipient] = operator.record(message)["recipients"]
        assert (recipient["status"], recipient["reply"]) == ("deferred", "Connection refused")
        assert operator.line(message).endswith("Connection refused")
        story = operator.spool("why", message)
        assert f"deferred for {TO} at {at(free_port)} (attempt 1): Connection refused" in story
    with Server() as mended:
        relay.configure(forward_to(mended))
        operator.spool("retry", messages[0])
        assert [operator.record(message)["state"] for message in messages] == ["new", "retry"]
        operator.run()
        assert [to for to, _ in mended.delivered()] == [TO]
        assert not operator.is_gone(messages[1])
        operator.spool("retry", "--all")
        operator.run()
        assert [to for to, _ in mended.delivered()] == [TO, TO]
    assert operator.spool("ls") == ""
    for message in messages:
        in_order(operator.spool("why", message), "accepted", "Connection refused", "requeued", "sent")


def test_a_refused_message_is_failed_and_retry_sends_it_once_the_provider_is_mended(
    relay: Relay, operator: Operator
) -> None:
    refusal = "550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown"
    with Server({"rcpt": [refusal, None]}) as server:
        relay.configure(forward_to(server))
        message = operator.accept()
        operator.run()
        record = operator.record(message)
        assert record["recipients"] == [{"address": TO, "status": "bounced", "reply": refusal}]
        assert (record["state"], record["next"]) == ("failed", None)
        for told in (operator.line(message), operator.spool("show", message), operator.spool("why", message)):
            assert "bounced" in told
            assert refusal in told
        operator.run(under=faketime("+30d"))
        assert server.messages == [], "what has failed is not tried by itself"
        operator.spool("retry", message)
        assert operator.statuses(message) == {TO: "pending"}
        operator.run()
        assert [to for to, _ in server.delivered()] == [TO]
    assert operator.is_gone(message)
    in_order(operator.spool("why", message), "accepted", refusal, "requeued", "sent")


def test_a_lost_final_reply_is_called_uncertain_until_there_is_one(relay: Relay, operator: Operator) -> None:
    with Server({"dot": [DROP, None]}) as server:
        relay.configure(forward_to(server))
        message = operator.accept()
        operator.run()
        assert operator.record(message)["state"] == "retry"
        assert operator.statuses(message) == {TO: "uncertain"}
        assert "[uncertain]" in operator.line(message)
        assert f"uncertain for {TO} at {at(server)}" in operator.spool("why", message)
        operator.run(under=NEXT_RUN)
        assert len(server.delivered()) == 1
    assert operator.is_gone(message)
    in_order(operator.spool("why", message), "accepted", "uncertain", "sent")


def test_refused_recipients_are_listed_separately_and_the_others_get_no_second_copy(
    relay: Relay, operator: Operator
) -> None:
    refusals = {BOB: "550 5.1.1 No such user", EVE: "452 4.2.2 Mailbox full"}
    with Server({"rcpt": per_address(refusals)}) as server:
        relay.configure(forward_to(server))
        message = operator.accept(ANN, BOB, DAN, EVE)
        operator.run()
        record = operator.record(message)
        assert record["state"] == "retry"
        assert {(who["address"], who["status"]) for who in record["recipients"]} == {
            (ANN, "sent"),
            (BOB, "bounced"),
            (DAN, "sent"),
            (EVE, "deferred"),
        }
        assert {who["address"]: who["reply"] for who in record["recipients"]}.items() >= refusals.items()
        line, shown, story = (
            operator.line(message),
            operator.spool("show", message),
            operator.spool("why", message),
        )
        assert all(
            f"{count} {status}" in line for count, status in [(2, "sent"), (1, "bounced"), (1, "deferred")]
        )
        for who in (BOB, EVE):
            assert re.search(rf"{re.escape(who)}: \w+ .*{re.escape(refusals[who])}", shown)
            assert re.search(rf"{re.escape(who)}: \w+.*{re.escape(refusals[who])}", story)
        server.script.clear()
        operator.run(under=NEXT_RUN)
        assert operator.statuses(message)[EVE] == "sent"
        assert operator.record(message)["state"] == "failed"
        operator.spool("retry", message)
        operator.run()
        assert sorted(to for to, _ in server.delivered()) == sorted([ANN, BOB, DAN, EVE])
    assert operator.is_gone(message)


def test_a_held_message_waits_for_its_release_and_says_who_holds_it_and_why(
    relay: Relay, operator: Operator
) -> None:
    with Server() as server:
        relay.configure(forward_to(server))
        held, other = operator.accept(), operator.accept()
        operator.spool("hold", held, "--reason", "asked the customer first")
        operator.run(under=faketime("+30d"))
        assert len(server.delivered()) == 1
        assert operator.is_gone(other)
        record = operator.record(held)
        assert (record["state"], record["next"]) == ("hold", None)
        assert operator.statuses(held) == {TO: "pending"}
        for told in (operator.line(held), operator.spool("show", held), operator.spool("why", held)):
            assert "asked the customer first" in told
        operator.spool("release", held)
        assert operator.record(held)["state"] == "new"
        operator.run()
        assert len(server.delivered()) == 2
    in_order(operator.spool("why", held), "accepted", "held", "asked the customer first", "released", "sent")


def test_a_removed_message_is_gone_and_remembered(relay: Relay, operator: Operator, free_port: int) -> None:
    relay.configure(forward_to(free_port))
    message = operator.accept()
    operator.run()
    operator.spool("rm", message)
    assert operator.spool("ls") == ""
    with Server() as server:
        relay.configure(forward_to(server))
        operator.run(under=NEXT_RUN)
        assert server.sessions == []
    story = operator.spool("why", message)
    assert "Removed" in story
    in_order(story, "accepted", "Connection refused", "removed")
    operator.spool("show", message, code=66)


def test_a_damaged_file_is_put_away_and_the_others_are_sent(relay: Relay, operator: Operator) -> None:
    with Server() as server:
        relay.configure(forward_to(server))
        damaged, whole = operator.accept(), operator.accept()
        file = relay.spool / "new" / damaged
        file.write_bytes(file.read_bytes().replace(b"hello", b"jello"))
        operator.run()
        assert [(to, b"jello" in body) for to, body in server.delivered()] == [(TO, False)]
        assert operator.is_gone(whole)
        record = operator.record(damaged)
        assert (record["state"], record["recipients"]) == ("corrupt", [])
        assert "digest" in record["reason"]
        for told in (operator.line(damaged), operator.spool("why", damaged)):
            assert record["reason"] in told
        assert record["reason"] in operator.spool("show", damaged, code=65)
        operator.spool("retry", damaged, code=65)
        operator.run()
        assert len(server.delivered()) == 1
    assert operator.record(damaged)["state"] == "corrupt"


def test_a_claimed_message_is_not_touched_and_one_whose_runner_died_is_taken_over(
    relay: Relay, operator: Operator
) -> None:
    with Server({"mail": [HANG, None]}) as server:
        relay.configure(forward_to(server))
        message = operator.accept()
        with relay.watch() as runner:
            until(lambda: any(b"MAIL" in line for s in server.sessions for line in s.commands), "the attempt")
            assert operator.record(message)["state"] == "cur"
            assert "claimed by a runner" in operator.line(message)
            assert "Claimed by a runner" in operator.spool("why", message)
            for verb in ("retry", "hold", "rm"):
                operator.spool(verb, message, code=75)
            runner.signal(signal.SIGKILL)
            runner.wait()
        assert operator.record(message)["state"] == "cur"
        assert "its runner ended early; next at the next run" in operator.line(message)
        assert "Its runner ended before it was finished" in operator.spool("why", message)
        operator.run()
        assert [to for to, _ in server.delivered()] == [TO]
    in_order(operator.spool("why", message), "accepted", "sent")
