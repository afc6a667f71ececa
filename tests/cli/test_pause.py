"""The operator's pause: nothing is claimed by any runner, nothing is lost, and it is seen."""

import re
import signal
import threading
import time
from pathlib import Path

from outbound.hostile import Server, reached
from outbound.sending import forward_to, queue
from spools.states import Queue
from spools.walk import walk
from testbed.relay import Relay, mailer_send_command
from testbed.terminal import Terminal
from testbed.waiting import until

from mailer.send.runner import PAUSE_POLL
from mailer.spool.directory import Spool
from mailer.spool.state import pause


def test_a_paused_run_claims_nothing_and_resume_lets_it_go_on(relay: Relay) -> None:
    queue(relay.spool)
    Queue(relay.spool).abandon(queue(relay.spool))
    assert "paused" in relay.mailer("pause", "--reason", "moving\nhouse").stdout
    assert "already" in relay.mailer("pause").stdout
    for command in (["spool", "ls"], ["spool", "ls", "--json"], ["spool", "stats"], ["send", "--dry-run"]):
        told = relay.mailer(*command).stderr
        assert told.startswith("paused by ")
        assert "house): nothing is sent until `mailer resume`" in told
        assert told.count("\n") == 1
    done = relay.mailer_send("--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(found.place for found in walk(relay.spool).values()) == ["cur", "new"]
    assert relay.mailer("resume").stdout == "resumed\n"
    assert relay.mailer("resume").stdout == "sending was not paused\n"
    assert relay.mailer("spool", "ls").stderr == ""
    assert relay.mailer_send().returncode == 0
    assert len(relay.delivered()) == 2


def test_a_runner_that_stays_sees_both_within_a_second_and_finishes_what_is_in_flight(relay: Relay) -> None:
    at_the_dot, go_on = threading.Event(), threading.Event()

    def hesitate(*_: object) -> str:
        at_the_dot.set()
        go_on.wait(60)
        return "250 2.0.0 queued"

    with Server({"dot": hesitate}) as server:
        relay.configure(forward_to(server))
        queue(relay.spool, ["first@example.net"])
        with relay.watch("--verbose") as watch:
            assert at_the_dot.wait(60)
            relay.mailer("pause")
            seen = time.monotonic() + PAUSE_POLL
            until(lambda: time.monotonic() > seen, "the time in which a runner sees it")
            queue(relay.spool, ["second@example.net"])
            go_on.set()
            until(lambda: len(server.delivered()) == 1, "the first message")
            until(lambda: [found.place for found in walk(relay.spool).values()] == ["new"], "its end")
            relay.mailer("resume")
            until(lambda: len(server.delivered()) == 2, "the second message", patience=10)
            watch.signal(signal.SIGTERM)
            assert watch.wait() == 0
    assert walk(relay.spool) == {}


def test_why_and_a_run_by_hand_report_the_pause(
    relay: Relay,
) -> None:
    states = Queue(relay.spool)
    untried, tried, held = states.new(), states.new(), states.new()
    states.defer(tried, "450 later")
    states.hold(held, "asked")
    relay.mailer("pause", "--reason", "moving")
    for message in (untried, tried):
        verdict = relay.mailer("spool", "why", message).stdout.splitlines()[1]
        assert re.search(
            r"paused by .+ since 20.+ \(moving\): nothing is sent until `mailer resume`", verdict
        )
        assert "no runner" not in verdict
        assert "to be tried again" not in verdict
    assert "paused" not in relay.mailer("spool", "why", held).stdout
    command = [*mailer_send_command(), "--once"]
    with Terminal(command, env={"MAILER_CONFIG": str(relay.config)}, cwd=relay.directory) as terminal:
        terminal.await_text("(moving): nothing is sent until `mailer resume`")
        assert terminal.await_end() == 0
        assert terminal.screen().count("\n") == 1
    relay.mailer("resume")
    assert "no runner has claimed it yet" in relay.mailer("spool", "why", untried).stdout


def test_a_file_made_by_hand_pauses_too(relay: Relay) -> None:
    queue(relay.spool)
    (relay.spool / "state" / "paused").touch()
    relay.mailer_send()
    assert relay.delivered() == []
    assert relay.mailer("spool", "stats").stderr == "paused: nothing is sent until `mailer resume`\n"


def test_nothing_is_claimed_while_it_is_unknown_whether_sending_is_paused(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        assert pause.pause(spool, 0.0, "somebody")
        state = spool_path / "state"
        state.rename(spool_path / "elsewhere")
        state.symlink_to(state)  # ELOOP, as EIO of a bad sector
        assert pause.is_paused(spool)
        paused = pause.read_pause(spool)
        assert paused is not None
        assert "state/paused cannot be read: " in paused.reason
        state.unlink()
        (spool_path / "elsewhere").rename(state)
        assert pause.resume(spool)
        assert not pause.is_paused(spool)
        assert pause.read_pause(spool) is None


def test_mail_is_accepted_during_a_pause(relay: Relay) -> None:
    with relay.serve(), relay.connect() as client:
        relay.mailer("pause")
        client.sendmail("app@example.com", ["bob@example.net"], b"Subject: hi\r\n\r\nhello\r\n")
    assert [found.place for found in walk(relay.spool).values()] == ["new"]


def test_retrying_by_hand_does_not_break_a_pause(relay: Relay) -> None:
    in_session = threading.Event()
    with Server({"mail": reached(in_session, None)}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        relay.mailer("pause")
        relay.mailer("spool", "retry", message)
        relay.mailer_send()
        assert not in_session.is_set()
        assert server.delivered() == []
