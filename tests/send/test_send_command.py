"""`mailer-send` as cron, systemd and people call it: what it says, how it ends, what it leaves."""

import json
import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from outbound.hostile import HANG, Server, per_address
from outbound.sending import MESSAGE, TO, arriving, at, forward_to, found, outcomes, queue
from spools.file_trees import snapshot
from spools.walk import walk
from testbed.capability import tracer
from testbed.faketime import faketime
from testbed.proc import gone
from testbed.process import ServerProcess
from testbed.relay import Relay, mailer_send_command
from testbed.waiting import until

# --once


def test_a_run_over_an_empty_spool_ends_with_0_and_says_nothing(relay: Relay) -> None:
    done = relay.mailer_send()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_that_only_defers_ends_with_0(relay: Relay, free_port: int) -> None:
    relay.configure(forward_to(free_port))
    queue(relay.spool)
    done = relay.mailer_send("--once")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verbose_says_what_becomes_of_each_message(relay: Relay, free_port: int) -> None:
    relay.configure(forward_to(free_port))
    message = queue(relay.spool)
    [line] = relay.mailer_send("--once", "--verbose").stderr.splitlines()
    assert f"id={message} event=deferred" in line
    assert 'reply="Connection refused"' in line


def test_a_limit_is_the_number_of_messages_that_are_tried(relay: Relay) -> None:
    ids = [queue(relay.spool) for _ in range(5)]
    assert relay.mailer_send("--once", "--limit", "2").returncode == 0
    assert len(relay.delivered()) == 2
    assert len(walk(relay.spool).keys() & set(ids)) == 3


def test_nothing_is_begun_after_max_seconds(relay: Relay) -> None:
    """The first message keeps the only place until the time is over; the other two are not begun."""
    over = threading.Event()
    with Server({"dot": lambda *_: over.wait(60) and "250 ok"}) as server:
        relay.configure(forward_to(server, sending={"concurrency": 1}))
        for _ in range(3):
            queue(relay.spool)
        ending = threading.Timer(3, over.set)  # the server's pace: longer than --max-seconds
        ending.start()
        assert relay.mailer_send("--once", "--max-seconds", "1").returncode == 0
        ending.join()
        assert len(server.messages) == 1
    assert [message.place for message in walk(relay.spool).values()] == ["new", "new"]


def test_mail_is_kept_in_the_local_maildir_while_no_route_is_on(relay: Relay) -> None:
    message = queue(relay.spool, [TO, "eve@example.org"])
    assert relay.mailer_send("--once").returncode == 0
    [kept] = relay.delivered()
    trace = b"Return-Path: <app@example.com>\nDelivered-To: bob@example.net\nDelivered-To: eve@example.org\n"
    assert kept == trace + MESSAGE.replace(b"\r\n", b"\n")
    assert found(relay.spool, message) is None


@pytest.mark.parametrize(
    "arguments", [("--watch", "--limit", "3"), ("--json",), ("--limit", "0"), ("--max-seconds", "soon")]
)
def test_options_that_make_no_sense_end_with_2(arguments: tuple[str, ...], relay: Relay) -> None:
    assert relay.mailer_send(*arguments).returncode == 2


@pytest.mark.parametrize("mode", ["--once", "--watch", "--dry-run"])
@pytest.mark.parametrize("spool", ["spool", "missing/spool"])
def test_a_spool_that_cannot_be_used_ends_with_75(relay: Relay, mode: str, spool: str) -> None:
    """A file where the spool should be; a parent directory that is not there (an unmounted disk, say)."""
    relay.spool.write_text("not a spool")
    relay.configure({"spoolDir": spool})
    done = relay.mailer_send(mode)
    assert done.returncode == 75
    assert "Not a directory" in done.stderr or "No such file or directory" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --dry-run


def test_a_dry_run_names_what_would_be_tried_and_how_and_touches_nothing(
    relay: Relay, free_port: int
) -> None:
    """An orphan, a due one and a new one; one that is not due; one that a living runner holds."""
    with Server({"rcpt": per_address({"later@example.net": "450 4.2.2 full"}), "dot": HANG}) as server:
        relay.configure(forward_to(server))
        due = queue(relay.spool, ["later@example.net"])
        relay.mailer_send()
        orphan = queue(relay.spool, ["orphan@example.net"])
        with relay.watch() as dying:
            until(lambda: server.messages, "the runner to reach the dot")
            dying.kill()
        held = queue(relay.spool, ["held@example.net"])
        with relay.watch("--max-seconds", "600") as living:
            until(lambda: len(server.messages) >= 3, "both to be in a runner's hands")
            living.signal(signal.SIGSTOP)
            new = queue(relay.spool, ["new@example.net", "more@example.net"])
            relay.configure(forward_to(free_port, server, sending={"shutdownGrace": 0}))
            before = snapshot(relay.spool)
            plain = relay.mailer_send("--dry-run", under=faketime("+3m"))
            told = relay.mailer_send("--dry-run", "--json", under=faketime("+3m"))
            assert snapshot(relay.spool) == before
            living.kill()
        after = relay.mailer_send("--dry-run", "--json")
    routes = [at(free_port), at(server)]
    records = {record["id"]: record for record in map(json.loads, told.stdout.splitlines())}
    assert {message: record["why"] for message, record in records.items()} == {due: "due", new: "new"}
    assert records[due]["attempt"] == 2
    assert records[new]["recipients"] == [
        {"address": "new@example.net", "rule": "", "through": routes, "reason": ""},
        {"address": "more@example.net", "rule": "", "through": routes, "reason": ""},
    ]
    assert f"through {routes[0]}, then {routes[1]}" in plain.stdout
    assert plain.stdout.endswith("2 messages would be taken; nothing was touched\n")
    orphans = [record for record in map(json.loads, after.stdout.splitlines()) if record["why"] == "orphaned"]
    assert {record["id"] for record in orphans} == {orphan, held}
    # They were past the dot: only the hop that may have them is asked again.
    assert {tuple(r["through"]) for record in orphans for r in record["recipients"]} == {(at(server),)}


def test_a_dry_run_without_a_spool_makes_none(relay: Relay) -> None:
    assert relay.mailer_send("--dry-run").returncode == 75
    assert not relay.spool.exists()


# --watch


def scans(trace: Path) -> int:
    """How often the traced runner has read a directory."""
    return trace.read_text().count("getdents64(") if trace.exists() else 0


def test_new_mail_is_taken_up_when_it_arrives_and_not_by_looking_for_it(relay: Relay, tmp_path: Path) -> None:
    """The clock starts just after a full minute: until the next, only the kernel tells of the second.

    It runs at a tenth of its pace, so that the next minute is ten away, however slow the machine is.
    """
    trace = tmp_path / "trace"
    under = (*faketime("@2026-11-22 12:00:01 x0.1"), tracer(), "-f", "-o", str(trace), "-e",
             "trace=getdents64,openat,epoll_wait")  # fmt: skip
    first = queue(relay.spool)
    with relay.watch(under=under) as watching:
        until(lambda: found(relay.spool, first) is None and relay.delivered(), "the first message")
        # strace passes no signal on.
        runner = int(trace.read_text().split()[0])
        try:
            until(lambda: '"tmp", O_RDONLY' in trace.read_text() and quiet(trace), "the first pass to end")
            before = scans(trace)
            with arriving(relay.spool) as second:
                # What is renamed into new/ stays locked until new/ is synced; the runner hears of it before.
                until(lambda: f'"new/{second}", O_RDWR' in trace.read_text(), "the runner to find it locked")
            until(lambda: found(relay.spool, second) is None, "the second message")
            assert scans(trace) == before
        finally:
            os.kill(runner, signal.SIGTERM)
            watching.wait()
    assert len(relay.delivered()) == 2


def quiet(trace: Path) -> bool:
    """The runner has gone to sleep."""
    return "epoll_wait(" in trace.read_text().splitlines()[-1]


def test_mail_whose_receiver_held_it_as_the_run_began_is_sent_when_it_is_free(relay: Relay) -> None:
    """It arrived before the run began to listen, and waited for the pass of the next minute.

    The clock runs at a tenth of its pace, so that the next minute is ten away.
    """
    first = queue(relay.spool)
    with ExitStack() as receiver:
        held = receiver.enter_context(arriving(relay.spool))
        with relay.watch(under=faketime("@2026-11-22 12:00:01 x0.1")):
            until(lambda: found(relay.spool, first) is None and relay.delivered(), "the pass")
            receiver.close()
            until(lambda: found(relay.spool, held) is None, "the message that was held")


def test_a_watcher_takes_over_what_a_dead_runner_left_and_what_was_there_before_it(relay: Relay) -> None:
    with Server({"mail": HANG}) as server:
        relay.configure(forward_to(server))
        queue(relay.spool)
        with relay.watch() as dying:
            until(lambda: server.sessions and server.sessions[0].commands[1:], "a transaction")
            dying.kill()
        server.script.clear()
        queue(relay.spool)
        with relay.watch():
            until(lambda: len(server.delivered()) == 2, "both messages")


@pytest.mark.fault_row(24)
def test_sigterm_lets_what_is_in_flight_finish(relay: Relay) -> None:
    reply = threading.Event()
    with Server({"dot": lambda *_: reply.wait(60) and "250 2.0.0 queued"}) as server:
        relay.configure(forward_to(server, sending={"concurrency": 1}))
        ids = [queue(relay.spool) for _ in range(2)]
        with relay.watch() as runner:
            until(lambda: server.messages, "the message to be at the dot")
            runner.signal(signal.SIGTERM)
            until(lambda: "finishing deliveries in progress" in runner.output(), "the runner to hear it")
            reply.set()
            assert runner.wait() == 0
        server.wait()
        assert server.delivered() == [(TO, MESSAGE)]
    left = walk(relay.spool)
    assert len(left) == 1
    assert left.keys() <= set(ids)
    assert {message.place for message in left.values()} == {"new"}


def test_past_the_grace_a_message_at_the_dot_is_uncertain_and_one_before_it_is_as_if_never_taken(
    relay: Relay,
) -> None:
    with Server({"dot": HANG, "mail": lambda _, line: HANG if b"early@" in line else None}) as tarpit:
        relay.configure(forward_to(tarpit, sending={"shutdownGrace": 1}))
        late = queue(relay.spool, sender="late@example.com")
        early = queue(relay.spool, sender="early@example.com")
        with relay.watch() as runner:
            until(lambda: tarpit.messages and _mails(tarpit) == 2, "both transactions to be under way")
            runner.signal(signal.SIGTERM)
            assert runner.wait() == 0
    at_the_dot, before_it = found(relay.spool, late), found(relay.spool, early)
    assert at_the_dot is not None
    assert before_it is not None
    assert (at_the_dot.place, at_the_dot.statuses) == ("retry", {TO: "uncertain"})
    assert at_the_dot.events[-1]["reply"] == "interrupted before the final reply"
    assert (before_it.place, outcomes(before_it)) == ("new", [])


def _mails(server: Server) -> int:
    return sum(line.startswith(b"MAIL") for session in server.sessions for line in session.commands)


def test_a_watcher_ends_with_the_program_that_started_it(relay: Relay, tmp_path: Path) -> None:
    """`mailer up` is killed: the kernel tells its runner."""
    command = f"{mailer_send_command()[0]} --watch --config {relay.config} --parent $$ & echo $! > pid; wait"
    parent = ServerProcess(["sh", "-c", command], tmp_path / "log", cwd=tmp_path)
    until(lambda: "watching" in (tmp_path / "log").read_text(), "the runner to watch")
    runner = int((tmp_path / "pid").read_text())
    parent.kill()
    until(lambda: "ended" in (tmp_path / "log").read_text(), "the runner to end")
    until(lambda: gone(runner), "the runner to be gone")
