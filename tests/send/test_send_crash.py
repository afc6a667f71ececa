"""Runners that are killed, stopped, or killed by one message again and again."""

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from outbound.bounces import notifications
from outbound.hostile import HANG, Server, per_address
from outbound.sending import MESSAGE, SENDER, forward_to, found, outcomes, queue
from spools.log_directory import opened
from spools.moves import MOVE
from spools.walk import Found, untold, walk
from testbed.capability import tracer
from testbed.relay import Relay
from testbed.waiting import until

from mailer.maillog.totals import TotalsFold

ANN, BOB = "ann@example.net", "bob@example.net"
CALLS = (
    *("connect", "fallocate", "fdatasync", "flock", "fsync"),
    *("recvfrom", MOVE, "sendto", "unlinkat", "write"),
)
"""System calls that change the disk, or what the other side knows."""


def traced(log: Path, *expressions: str) -> tuple[str, ...]:
    options = [word for expression in expressions for word in ("-e", expression)]
    return (tracer(), "-f", "-o", str(log), *options)


def numbered(log: Path) -> Iterator[tuple[str, int, str]]:
    """The calls of a trace: name, which of its thread's it is (as strace's `when` counts), arguments."""
    seen: Counter[tuple[str, str]] = Counter()
    for thread, name, arguments in re.findall(r"^(\d+) +(\w+)\((.*)", log.read_text(), re.MULTILINE):
        seen[thread, name] += 1
        yield name, seen[thread, name], arguments


def made(log: Path, number: int) -> bool:
    """Tell whether a thread got as far as its n-th call, in a trace of one kind of call.

    A run on a busy machine makes others than the run before: one more sync of the journal of a message that
    takes half a second, more writes to a server where a message was not ready behind the dot of the last one.
    (*Measured: 12 instead of 10, in one of 25 runs beside three busy loops on two processors.*)
    """
    return any(each >= number for _, each, _ in numbered(log))


def kill_points(log: Path, message: str) -> Iterator[tuple[str, int, str]]:
    """Each of CALLS from the claim on: name, number, and a path where the number alone is ambiguous."""
    begun = False
    points: set[tuple[str, int, str]] = set()
    for name, number, arguments in numbered(log):
        begun = begun or f'"new/{message}"' in arguments
        if not begun or name not in CALLS:
            continue
        point = (name, number, "")
        if point in points and name == MOVE:
            # Another thread has made its n-th rename before.
            point = (name, 1, re.findall(r'"([^"]*)"', arguments)[0].replace(message, "ID"))
        if point not in points:
            points.add(point)
            yield point


@pytest.mark.fault_row(1)
@pytest.mark.parametrize("route", ["forward", "local"])
def test_a_runner_killed_at_any_system_call_loses_nothing_and_doubles_only_what_is_committing(
    route: str, tmp_path: Path
) -> None:
    """Each death is followed by one ordinary run."""
    now = time.time()
    with Server() as server:
        relay = _relay(tmp_path / "whole", route, server)
        message = queue(relay.spool, [ANN, BOB], received=now)
        log = tmp_path / "log"
        assert relay.mailer_send(under=traced(log, f"trace={','.join(CALLS)},openat")).returncode == 0
    points = list(kill_points(log, message))
    assert len(points) > 8, points
    for call, number, path in points:
        case = (call, number, path)
        directory = tmp_path / "-".join(map(str, case)).replace("/", "_")
        with Server() as server:
            relay = _relay(directory, route, server)
            message = queue(relay.spool, [ANN, BOB], received=now)
            only = ("-P", path.replace("ID", message)) if path else ()
            killer = traced(directory / "trace", f"trace={call}", f"inject={call}:signal=KILL:when={number}")
            ended = relay.mailer_send(under=(*killer, *only)).returncode
            assert ended != 0 or not made(directory / "trace", number), case
            after_death = found(relay.spool, message)
            assert relay.mailer_send("--once").returncode == 0
            copies = server.delivered() if route == "forward" else _local(relay)
        doubtful = after_death is not None and set(after_death.statuses.values()) == {"uncertain"}
        expected = Counter({(ANN, MESSAGE): 1, (BOB, MESSAGE): 1})
        assert Counter(copies) in ([expected, expected + expected] if doubtful else [expected]), case
        assert walk(relay.spool) == {}, case
        # The ledger was told of it exactly once, as readers count it.
        counted = TotalsFold(partial(opened, relay.spool / "log"), time.time).refresh()
        assert (counted.sent, counted.delivered) == (2, 1), case


AROUND_DOTS = ("fallocate", "sendto", "write")


@pytest.mark.fault_row(1)
def test_a_runner_killed_while_messages_are_begun_behind_dots_leaves_one_of_them_in_doubt(
    tmp_path: Path,
) -> None:
    """The server may have a message's MAIL, RCPT and DATA; its journal says nothing until its own dot."""
    count, one_session = 4, {"maxSessionsPerHop": 1}
    log = tmp_path / "log"
    with Server() as server:
        relay = _relay(tmp_path / "whole", "forward", server)
        relay.configure({"sending": one_session})
        messages = [queue(relay.spool) for _ in range(count)]
        assert relay.mailer_send(under=traced(log, f"trace={','.join(AROUND_DOTS)},openat")).returncode == 0
        assert any(b"\r\n.\r\nMAIL" in write for write in server.sessions[0].writes)
    points = [point for point in kill_points(log, messages[0]) if point[0] in AROUND_DOTS]
    assert len(points) > 5 * count, points
    for call, number, _ in points:
        directory = tmp_path / f"{call}-{number}"
        with Server() as server:
            relay = _relay(directory, "forward", server)
            relay.configure({"sending": one_session})
            messages = [queue(relay.spool) for _ in range(count)]
            killer = traced(directory / "trace", f"trace={call}", f"inject={call}:signal=KILL:when={number}")
            ended = relay.mailer_send(under=killer).returncode
            assert ended != 0 or not made(directory / "trace", number), (call, number)
            left = walk(relay.spool)
            journals = Counter(tuple(one.kinds) for one in left.values())
            untouched = journals.pop(("accepted",), 0)
            in_doubt = journals.pop(("accepted", "committing"), 0)
            assert in_doubt <= 1, (call, number)
            assert set(journals) <= {("accepted", "committing", "sent")}, (call, number)
            assert relay.mailer_send("--once").returncode == 0
            assert count <= len(server.delivered()) <= count + in_doubt, (call, number)
            assert len(server.delivered()) >= untouched
        assert walk(relay.spool) == {}, (call, number)


STEPS = ("fdatasync", "fsync", MOVE)
"""System calls between which one state of a bounce ends and the next begins."""
REFUSING = {"rcpt": per_address({BOB: "550 5.1.1 no such user"})}


def test_a_runner_killed_at_any_step_of_a_bounce_leaves_exactly_one(tmp_path: Path) -> None:
    """The states between all other system calls: `test_spool_notice`."""
    log = tmp_path / "log"
    with Server(REFUSING) as server:
        relay = _bouncing(tmp_path / "whole", server)
        message = queue(relay.spool, [ANN, BOB])
        whole = (*traced(log, f"trace={','.join(CALLS)},openat"), "-s", "4096")
        assert relay.mailer_send(under=whole).returncode == 0
    check_order(log, message)
    points = [
        (call, number, path)
        for call, number, path in kill_points(log, message)
        # The bounce's own id is another one each time.
        if call in STEPS and (not path or "ID" in path)
    ]
    assert len(points) > 5, points
    for call, number, path in points:
        case = (call, number, path)
        directory = tmp_path / "-".join(map(str, case)).replace("/", "_")
        with Server(REFUSING) as server:
            relay = _bouncing(directory, server)
            message = queue(relay.spool, [ANN, BOB])
            only = ("-P", path.replace("ID", message)) if path else ()
            killer = traced(directory / "trace", f"trace={call}", f"inject={call}:signal=KILL:when={number}")
            ended = relay.mailer_send(under=(*killer, *only)).returncode
            assert ended != 0 or not made(directory / "trace", number), case
            assert relay.mailer_send("--once").returncode == 0
            assert [each.recipients.keys() for each in notifications(server)] == [{BOB}], case
            assert [to for to, _ in server.delivered() if to != SENDER] == [ANN], case
        left = walk(relay.spool)
        assert (left.keys(), untold(left)) == ({message}, []), case
        assert left[message].place == "failed", case


def _bouncing(directory: Path, server: Server) -> Relay:
    directory.mkdir()
    return Relay(directory, forward_to(server, bounce="sender"))


def check_order(log: Path, message: str) -> None:
    """Durable before it matters, as a power cut wants it: bounce, its name, the line about it, the moves."""
    calls = re.findall(r"^\d+ +(\w+)\((.*)", log.read_text(), re.MULTILINE)
    notice = next(i for i in re.findall(r'"tmp/(\w+)", O_RDWR', log.read_text()) if i != message)

    def at(name: str, *holding: str) -> int:
        there = (call == name and all(text in words for text in holding) for call, words in calls)
        return next(number for number, found in enumerate(there) if found)

    created, named = at("openat", f'"tmp/{notice}"'), at("write", "notified", notice)
    enqueued = at(MOVE, f'"tmp/{notice}"', f'"new/{notice}"')
    moved = at(MOVE, f'"cur/{message}"', f'"failed/{message}"')
    assert created < named < enqueued < moved
    between = [call for call, _ in calls[created:named]]
    assert between.count("fsync") == 2, "the file, and tmp/"
    assert "fdatasync" in [call for call, _ in calls[named:enqueued]], "the parent's journal"
    assert "fsync" in [call for call, _ in calls[enqueued:moved]], "new/"


def _relay(directory: Path, route: str, server: Server) -> Relay:
    directory.mkdir()
    return Relay(directory, forward_to(server) if route == "forward" else {})


def _local(relay: Relay) -> list[tuple[str, bytes]]:
    return [
        (to.decode(), kept[kept.index(b"From:") :].replace(b"\n", b"\r\n"))
        for kept in relay.delivered()
        for to in re.findall(rb"^Delivered-To: (.*)$", kept, re.MULTILINE)
    ]


@pytest.mark.fault_row(12)
def test_a_stopped_runner_keeps_its_message_and_finishes_it_when_continued(relay: Relay) -> None:
    """SIGSTOP in the middle of a transaction; a second runner works beside it."""
    with Server(
        {"dot": lambda *_: until(lambda: go_on, "the test to go on") and "250 2.0.0 queued"}
    ) as server:
        go_on: list[bool] = []
        relay.configure(forward_to(server))
        held = queue(relay.spool, [ANN])
        with relay.watch("--max-seconds", "600") as stopped:
            until(lambda: server.messages, "the message to be at the dot")
            stopped.signal(signal.SIGSTOP)
            go_on.append(True)
            other = queue(relay.spool, [BOB])
            assert relay.mailer_send("--once").returncode == 0
            assert found(relay.spool, other) is None
            mine = found(relay.spool, held)
            assert mine is not None
            assert (mine.place, mine.kinds) == ("cur", ["accepted", "committing"])
            stopped.signal(signal.SIGCONT)
            until(lambda: found(relay.spool, held) is None, "the stopped runner to finish")
        assert sorted(server.delivered()) == [(ANN, MESSAGE), (BOB, MESSAGE)]


def die_in_the_middle(relay: Relay, server: Server, poison: str) -> None:
    """Let a runner come as far as the poison's MAIL, where the server hangs, and kill it there."""
    before = _begun(server, poison)
    with relay.watch() as runner:
        until(lambda: _begun(server, poison) > before, "the runner to be in the middle of the poison")
        runner.kill()


def _begun(server: Server, sender: str) -> int:
    line = f"MAIL FROM:<{sender}>".encode()
    return sum(command.startswith(line) for session in server.sessions for command in session.commands)


def test_a_message_that_kills_its_runners_is_tried_alone_and_then_held(relay: Relay) -> None:
    poison = "poison@example.com"
    hang = f"MAIL FROM:<{poison}>".encode()
    with Server({"mail": lambda _, line: HANG if line.startswith(hang) else None}) as server:
        relay.configure(forward_to(server))
        bad = queue(relay.spool, sender=poison)
        innocents = [queue(relay.spool, [f"user{number}@example.net"]) for number in range(5)]
        for _ in range(2):
            die_in_the_middle(relay, server, poison)
        # Twice recovered: from here on nothing else is in the runner's hands when it dies.
        assert _message(relay, bad).kinds.count("recovered") == 1
        for alone in (1, 2, 3):
            die_in_the_middle(relay, server, poison)
            assert _message(relay, bad).kinds.count("alone") == alone
        tries = _begun(server, poison)
        assert relay.mailer_send("--once").returncode == 0
        assert _begun(server, poison) == tries
        assert {to for to, _ in server.delivered()} == {f"user{number}@example.net" for number in range(5)}
        assert len(server.delivered()) == 5
    left = walk(relay.spool)
    assert left.keys() == {bad}
    assert left[bad].place == "hold"
    reason = str(left[bad].events[-1]["reason"])
    assert reason == "3 runners died while this was their only active message"
    assert not left.keys() & set(innocents)


def test_a_suspect_is_not_started_beside_messages_that_are_under_way(relay: Relay) -> None:
    """Or it would be blamed for their deaths. It lies in `new/` among them, as a run that ended left it."""
    suspicious = "suspicious@example.com"
    with Server({"mail": HANG}) as server:
        relay.configure(forward_to(server, sending={"concurrency": 50}))
        suspect = queue(relay.spool, sender=suspicious)
        for _ in range(3):
            die_in_the_middle(relay, server, suspicious)
        (relay.spool / "cur" / suspect).rename(relay.spool / "new" / suspect)
        for _ in range(20):
            queue(relay.spool)
        begun = len(server.sessions)
        with relay.watch() as runner:
            until(lambda: any(session.commands[1:] for session in server.sessions[begun:]), "a transaction")
            runner.kill()
        tried_alone = _message(relay, suspect).kinds.count("alone") == 2
        assert not (tried_alone and _begun(server, SENDER))


def _message(relay: Relay, message_id: str) -> Found:
    message = found(relay.spool, message_id)
    assert message is not None
    return message


def test_an_innocent_that_was_in_hand_when_runners_died_is_not_held(relay: Relay) -> None:
    """It is tried alone, and sent."""
    slow = "slow@example.net"
    with Server({"rcpt": per_address({slow: HANG})}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, [slow])
        for _ in range(2):
            die_in_the_middle(relay, server, SENDER)
        server.script.clear()
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(slow, MESSAGE)]
    assert found(relay.spool, message) is None


def test_outcomes_that_a_dead_runner_recorded_are_logged_by_the_next_one(
    relay: Relay, tmp_path: Path
) -> None:
    """Killed between the journal's line and the ledger's; the other recipient is still to be tried."""
    with Server() as server:
        relay.configure(forward_to(server, batchSize=1))
        message = queue(relay.spool, [ANN, BOB])
        killer = traced(tmp_path / "trace", "trace=openat", "inject=openat:signal=KILL:when=1")
        today = f"{datetime.now(UTC):%Y%m%d}.jsonl"
        assert relay.mailer_send(under=(*killer, "-P", today)).returncode != 0
        assert outcomes(_message(relay, message)) == [("committing", (ANN,)), ("sent", (ANN,))]
        assert not list((relay.spool / "log").glob("*.jsonl"))
        relay.mailer_send()
    [ledger] = (relay.spool / "log").glob("*.jsonl")
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [line["to"] for line in lines if line["event"] == "sent"] == [[ANN], [BOB]]
