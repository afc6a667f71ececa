"""`mailer spool retry`, `hold`, `release`, `rm` and `sweep` do what they say, to the messages meant."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from spools.moves import MOVE
from spools.states import Queue
from testbed.capability import tracer
from testbed.relay import Relay

from mailer.spool.ids import new_id

VERBS = ("retry", "hold", "release", "rm")


@pytest.fixture
def queue(relay: Relay) -> Queue:
    return Queue(relay.spool)


def state_of(queue: Queue, message: str) -> str:
    (path,) = [path for path in queue.spool.path.rglob(message) if path.is_file()]
    return path.relative_to(queue.spool.path).parts[0]


@pytest.mark.security_case(85)
@pytest.mark.parametrize("command", [*VERBS, "show", "why"])
@pytest.mark.parametrize("message", ["../../etc/passwd", "%2e%2e", "a/b", "*", "", "new/01"])
def test_a_malformed_id_is_refused_and_nothing_is_touched(
    relay: Relay, queue: Queue, command: str, message: str
) -> None:
    """SECURITY_CASES 85: what is no id is exit code 2, before the spool is opened."""
    queue.new()
    before = queue.files()
    done = relay.mailer("spool", command, message)
    assert done.returncode == 2
    assert "not a message id" in done.stderr
    assert queue.files() == before


@pytest.mark.parametrize("command", [*VERBS, "show", "why"])
def test_an_unknown_id_is_not_found(relay: Relay, queue: Queue, command: str) -> None:
    done = relay.mailer("spool", command, "01ZZZZZZZZZZZZZZZZZZZZZZZZ")
    assert done.returncode == 66
    assert "no such message" in done.stderr


@pytest.mark.parametrize("command", [*VERBS, "show", "why"])
def test_an_ambiguous_id_names_the_candidates_and_touches_nothing(
    relay: Relay, queue: Queue, command: str
) -> None:
    ids = [queue.new(), queue.new()]
    before = queue.files()
    # The first three characters change once a year.
    done = relay.mailer("spool", command, ids[0][:3])
    assert done.returncode == 2
    assert all(message in done.stderr for message in ids)
    assert queue.files() == before


def test_an_id_may_be_shortened_and_written_small(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    assert relay.mailer("spool", "hold", message[:8].lower()).returncode == 0
    assert state_of(queue, message) == "hold"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_ids_filter_or_all_does_nothing(relay: Relay, queue: Queue, verb: str) -> None:
    queue.new()
    before = queue.files()
    assert relay.mailer("spool", verb).returncode == 2
    assert queue.files() == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_dry_run_says_what_it_would_do_and_does_nothing(relay: Relay, queue: Queue, verb: str) -> None:
    queue.new()
    queue.defer(queue.new(), "451 no")
    queue.hold(queue.new(), "x")
    before = queue.files()
    done = relay.mailer("spool", verb, "--all", "--dry-run")
    assert done.returncode == 0
    assert "would be" in done.stdout
    assert queue.files() == before


def test_retry_all_means_deferred_and_failed_messages(relay: Relay, queue: Queue) -> None:
    deferred, failed, held = queue.new(), queue.new(), queue.new()
    queue.defer(deferred, "451 no")
    queue.fail(failed, "550 no")
    queue.hold(held, "x")
    done = relay.mailer("spool", "retry", "--all")
    assert done.returncode == 0
    assert "2 messages requeued" in done.stderr
    assert [state_of(queue, message) for message in (deferred, failed, held)] == ["new", "new", "hold"]


def test_a_filter_chooses_what_is_retried(relay: Relay, queue: Queue) -> None:
    ids = [queue.new("bob@example.net"), queue.new("eve@example.org")]
    queue.defer(ids[0], "451 no", "bob@example.net")
    queue.defer(ids[1], "451 no", "eve@example.org")
    relay.mailer("spool", "retry", "--recipient", "@example.org")
    assert [state_of(queue, message) for message in ids] == ["retry", "new"]


def test_hold_and_release_are_recorded_with_the_operator(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    me = pwd.getpwuid(os.getuid()).pw_name
    relay.mailer("spool", "hold", message, "--reason", "first ask")
    assert state_of(queue, message) == "hold"
    relay.mailer("spool", "release", message)
    assert state_of(queue, message) == "new"
    story = relay.mailer("spool", "why", message).stdout
    assert f"held, by {me}: first ask" in story
    assert f"released, by {me}" in story
    ledger = "".join(path.read_text() for path in (relay.spool / "log").glob("*.jsonl"))
    events = [json.loads(line) for line in ledger.splitlines()]
    assert [(event["event"], event["by"]) for event in events] == [("held", me), ("released", me)]


def test_releasing_what_is_not_held_is_refused(relay: Relay, queue: Queue) -> None:
    done = relay.mailer("spool", "release", queue.new())
    assert done.returncode == 65
    assert "it is not held" in done.stdout


@pytest.mark.parametrize("verb", ["retry", "hold", "rm"])
def test_a_message_that_a_runner_has_claimed_is_busy_and_unchanged(
    relay: Relay, queue: Queue, verb: str
) -> None:
    busy, free = queue.new(), queue.new()
    with queue.claimed(busy):
        done = relay.mailer("spool", verb, busy, free, "--json")
    assert done.returncode == 75
    results = {record["id"]: record["result"] for record in map(json.loads, done.stdout.splitlines())}
    assert results == {busy: "busy", free: "done"}
    assert state_of(queue, busy) == "cur"


def test_one_wrong_id_among_several_touches_none(relay: Relay, queue: Queue) -> None:
    message = queue.new()
    assert relay.mailer("spool", "rm", message, "01ZZZZZZZZZZZZZZZZZZZZZZZZ").returncode == 66
    assert state_of(queue, message) == "new"


def test_rm_all_removes_every_message_once(relay: Relay, queue: Queue) -> None:
    queue.new()
    queue.hold(queue.new(), "x")
    queue.damage(queue.new())
    done = relay.mailer("spool", "rm", "--all")
    assert "3 messages removed" in done.stderr
    assert queue.files() == {}


def test_rm_removes_what_was_quarantined_and_refuses_a_directory_that_is_not_empty(
    relay: Relay, queue: Queue
) -> None:
    fifo, full = (queue.spool.path / "corrupt" / new_id(at) for at in (1e9, 2e9))
    os.mkfifo(fifo)
    (full / "inside").mkdir(parents=True)
    done = relay.mailer("spool", "rm", "--state", "corrupt")
    assert done.returncode == 65
    assert f"{fifo.name} removed" in done.stdout
    assert f"{full.name} refused: it is a directory that is not empty" in done.stdout
    assert not fifo.exists()
    assert full.exists()


@pytest.mark.parametrize("where", ["| true", "2>&1 | true", ">/dev/full", ">/dev/full 2>&1"])
@pytest.mark.parametrize(("verb", "left"), [("hold", {"hold"}), ("rm", set()), ("sweep", {"new"})])
def test_a_command_finishes_its_work_when_its_reader_closes_the_pipe(
    relay: Relay, queue: Queue, verb: str, left: set[str], where: str
) -> None:
    """`mailer spool rm --all | head` removes all, as it would without the head."""
    ids = [queue.new() for _ in range(300)]
    for message in ids if verb == "sweep" else ():
        queue.defer(message, "451 no", seconds=-120)
    selection = "" if verb == "sweep" else "--all"
    command = f'"$0" -m mailer spool {verb} {selection} --config "$1" {where}; echo "${{PIPESTATUS[0]}}" >&3'
    reading, writing = os.pipe()
    subprocess.run(
        ["bash", "-c", f"exec 3>&{writing}; {command}", sys.executable, str(relay.config)],
        pass_fds=[writing],
        check=True,
    )
    os.close(writing)
    with open(reading) as status:  # noqa: PTH123 - a descriptor has no path
        assert status.read() == "0\n"
    remaining = [state_of(queue, message) for message in ids] if left else list(queue.files())
    assert set(remaining) == left


def test_sweep_moves_what_is_due_and_only_that(relay: Relay, queue: Queue) -> None:
    due, later = queue.new(), queue.new()
    queue.defer(due, "451 no", seconds=-120)
    queue.defer(later, "451 no", seconds=3600)
    assert "1 message due" in relay.mailer("spool", "sweep", "--dry-run").stdout
    assert state_of(queue, due) == "retry"
    assert "1 message requeued" in relay.mailer("spool", "sweep").stdout
    assert [state_of(queue, due), state_of(queue, later)] == ["new", "retry"]


@pytest.mark.parametrize(
    ("verb", "call", "place"),
    [
        ("rm", "unlinkat", "new"),
        ("hold", MOVE, "new"),
        ("release", MOVE, "hold"),
        ("retry", MOVE, "failed"),
    ],
)
def test_one_message_that_fails_does_not_keep_the_others_from_being_done(
    relay: Relay, queue: Queue, tmp_path: Path, verb: str, call: str, place: str
) -> None:
    messages = [queue.new() for _ in range(4)]
    for message in messages:
        if place == "hold":
            queue.hold(message, "x")
        elif place == "failed":
            queue.fail(message, "550 no")
    broken = ("-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when=2")
    done = relay.mailer(
        "spool", verb, "--all", "--json", under=(tracer(), "-f", "-o", str(tmp_path / "trace"), *broken)
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(each["result"] for each in told) == ["done", "done", "done", "failed"]
    [failed] = [each for each in told if each["result"] == "failed"]
    assert failed["reason"].endswith("Input/output error")
    assert "1 failed" in done.stderr
    assert done.returncode == 75
    left = [path.name for path in (relay.spool / place).iterdir()]
    assert left == [failed["id"]]


def test_one_message_on_a_bad_sector_does_not_hide_the_others(
    relay: Relay, queue: Queue, tmp_path: Path
) -> None:
    messages = {queue.new() for _ in range(4)}
    broken = ("-e", "trace=pread64", "-P", str(relay.spool / "new" / min(messages)))
    inject = ("-e", "inject=pread64:error=EIO")
    under = (tracer(), "-f", "-o", str(tmp_path / "trace"), *broken, *inject)
    listed = relay.mailer("spool", "ls", "--state", "new", "--json", under=under)
    assert listed.returncode == 0, listed.stderr
    assert {json.loads(line)["id"] for line in listed.stdout.splitlines()} == messages
    done = relay.mailer("spool", "hold", "--all", under=under)
    assert done.returncode == 75
    assert f"{min(messages)} failed: " in done.stdout
    assert {path.name for path in (relay.spool / "hold").iterdir()} == messages - {min(messages)}
