"""`mailer spool move`, as an operator types it, with real programs at both ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from spools.handing_over import owned
from spools.states import Queue
from spools.walk import walk
from testbed.capability import with_own_mounts
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.waiting import until

from mailer.spool.directory import Spool
from mailer.spool.handover.alone import alone
from mailer.spool.handover.wire import Greeting
from mailer.spool.view.inspect import _SLACK

MESSAGES = int(os.environ.get("MAILER_MOVE_MESSAGES", "40"))


@pytest.fixture
def other(tmp_path: Path) -> Relay:
    """The relay of another host."""
    directory = tmp_path / "other"
    directory.mkdir()
    return Relay(directory)


@pytest.fixture
def queue(relay: Relay) -> Queue:
    return Queue(relay.spool)


def ssh(to: Relay, script: str = 'exec "$@"') -> str:
    """A command like `ssh HOST`: it runs its arguments with the configuration of another relay."""
    path = to.directory / "ssh"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = relay2 ] || exit 9\nshift\nexport MAILER_CONFIG={to.config}\n'
        f'set -- {sys.executable} -m "$@"\n{script}\n'
    )
    path.chmod(0o700)
    return f"{path} relay2"


def cut(to: Relay) -> str:
    """The same, with a connection that brings the greeting back and nothing more."""
    greeting = msgspec.json.encode(Greeting(f"{os.uname().nodename}:{to.spool}", "0" * 32))
    return ssh(to, f'"$@" | head -c {len(b"mailer-move 1") + 1 + 5 + len(greeting)}')


def test_a_disk_is_replaced(relay: Relay, queue: Queue, other: Relay) -> None:
    ids = [queue.new() for _ in range(3)]
    queue.hold(ids[2], "asked the customer first")
    would = relay.mailer("spool", "move", "--all", "--to-spool", str(other.spool), "--dry-run")
    assert (would.returncode, would.stderr) == (0, "3 messages would be moved\n")
    assert f"{ids[0]} would be moved (was in new/)\n" in would.stdout
    assert not other.spool.exists()
    done = relay.mailer("spool", "move", "--all", "--to-spool", str(other.spool), "--json")
    assert (done.returncode, done.stderr) == (0, "3 messages moved\n")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["id"]: line["result"] for line in told} == dict.fromkeys(ids, "done")
    assert walk(relay.spool) == {}
    assert other.mailer_send("--once").returncode == 0
    assert len(other.delivered()) == 2
    held = other.mailer("spool", "why", ids[2]).stdout
    assert "Held: asked the customer first." in held
    assert "arrived from another spool" in held
    gone = relay.mailer("spool", "why", ids[0]).stdout
    assert f"Moved to {os.uname().nodename}:{other.spool} by " in gone


def test_a_message_with_two_names_is_moved_once(relay: Relay, queue: Queue, other: Relay) -> None:
    """Where there is no journal, a runner that was killed has just given a message a second name."""
    ids = {queue.new() for _ in range(10)}
    for each in ids:
        os.link(relay.spool / "new" / each, relay.spool / "cur" / each)
    changed = (relay.spool / "new" / each).stat().st_ctime
    until(lambda: time.time() > changed + _SLACK + 1, "a listing that finds them at rest")
    done = relay.mailer("spool", "move", "--all", "--to-spool", str(other.spool))
    assert (done.returncode, done.stderr) == (0, "10 messages moved\n")
    assert (walk(relay.spool), walk(other.spool).keys()) == ({}, ids)


def test_a_host_is_taken_down_by_ssh(relay: Relay, queue: Queue, other: Relay) -> None:
    ids = [queue.new("bob@example.net"), queue.new("eve@example.org")]
    command = ("spool", "move", "--via", ssh(other), "--recipient", "@example.org")
    done = relay.mailer(*command)
    assert (done.returncode, done.stdout) == (0, f"{ids[1]} moved (was in new/)\n"), done.stderr
    assert (walk(relay.spool).keys(), owned(other.spool).keys()) == ({ids[0]}, {ids[1]})
    assert "arrived" in other.mailer("log", "--id", ids[1]).stdout


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--all",), 2, "either --via COMMAND or --to-spool DIR"),
        (("--all", "--via", "x", "--to-spool", "y"), 2, "either --via COMMAND or --to-spool DIR"),
        (("--via", "x"), 2, "Name messages by their IDs"),
        (("--all", "--via", "/nonexistent/ssh relay2"), 69, "/nonexistent/ssh cannot be started"),
        (("--all", "--via", "false"), 69, "the other spool does not answer"),
        (("--all", "--via", "echo Welcome,"), 69, "does not speak this version of the protocol"),
        (("--take",), 2, "--take needs IDs"),
        (("--resume", "--via", "x", "--sender", "y"), 2, "filters do not apply"),
    ],
)
def test_what_cannot_be_done_is_said(
    relay: Relay, queue: Queue, options: tuple[str, ...], code: int, words: str
) -> None:
    waits = queue.new()
    done = relay.mailer("spool", "move", *options)
    assert (done.returncode, words in done.stderr.replace("\n", " ")) == (code, True), done.stderr
    assert owned(relay.spool)[waits].kinds == ["accepted"]


def test_it_does_not_move_into_the_spool_that_it_is_in(relay: Relay, queue: Queue) -> None:
    queue.new()
    done = relay.mailer("spool", "move", "--all", "--to-spool", str(relay.spool))
    assert (done.returncode, "the spool that the messages are in" in done.stderr) == (2, True)


def test_it_does_not_move_into_its_own_spool_by_ssh(relay: Relay, queue: Queue) -> None:
    """The host is this one, or a container that has the same volume: both sides wait for the locks of one."""
    stays = queue.new()
    done = relay.mailer("spool", "move", "--all", "--via", ssh(relay))
    assert (done.returncode, "another move is under way" in done.stderr) == (75, True), done.stderr
    assert owned(relay.spool)[stays].kinds == ["accepted"]


@pytest.mark.parametrize("busy", ["source", "target"])
def test_two_moves_do_not_meet_in_one_spool(relay: Relay, queue: Queue, other: Relay, busy: str) -> None:
    stays = queue.new()
    Queue(other.spool).new()
    with Spool.open(relay.spool if busy == "source" else other.spool) as spool, alone(spool):
        done = relay.mailer("spool", "move", "--all", "--via", ssh(other))
    assert (done.returncode, "another move is under way" in done.stderr) == (
        75 if busy == "source" else 69, True
    ), done.stderr  # fmt: skip
    assert owned(relay.spool)[stays].kinds == ["accepted"]


def test_a_message_that_a_runner_has_claimed_stays(relay: Relay, queue: Queue, other: Relay) -> None:
    claimed = queue.new()
    with queue.claimed(claimed):
        done = relay.mailer("spool", "move", "--all", "--via", ssh(other))
    assert (done.returncode, done.stdout) == (75, f"{claimed} busy: a runner has claimed it\n")


def test_what_is_between_two_spools_is_shown_and_resumed(relay: Relay, queue: Queue, other: Relay) -> None:
    waits = queue.new()
    done = relay.mailer("spool", "move", "--all", "--via", cut(other))
    assert (done.returncode, f"{waits} waiting: it ended the connection" in done.stdout) == (75, True)
    assert "repeat this with --resume" in done.stderr
    assert relay.mailer_send("--once").returncode == other.mailer_send("--once").returncode == 0
    assert walk(relay.spool)[waits].is_parked
    assert walk(other.spool)[waits].is_parked
    for at in (relay, other):
        assert "`mailer spool move --resume` continues" in at.mailer("spool", "ls").stdout
        assert "Not sent by any spool since " in at.mailer("spool", "why", waits).stdout
        findings = at.mailer("doctor", "--all").stdout
        assert "between two spools" in findings
        for verb in ("retry", "release"):
            refused = at.mailer("spool", verb, waits)
            assert (refused.returncode, "--resume" in refused.stdout) == (65, True), refused.stdout
    with relay.monitor():
        assert "between two spools" in ask(relay.http_port, "/health").json["checks"]["held"]["message"]
    assert relay.mailer("spool", "rm", waits).returncode == 65
    again = relay.mailer("spool", "move", waits, "--via", ssh(other))
    assert (again.returncode, f"{waits} waiting: being moved to " in again.stdout) == (75, True)
    assert "repeat this with --resume" in again.stderr
    finished = relay.mailer("spool", "move", "--resume", "--via", ssh(other))
    assert (finished.returncode, finished.stderr) == (0, "1 message moved\n")
    assert (walk(relay.spool), owned(other.spool).keys()) == ({}, {waits})


def test_a_disk_that_fills_up_keeps_no_message_between_the_spools(relay: Relay, queue: Queue) -> None:
    """The target is a filesystem of 100 KiB, with nothing reserved; what arrived is in `spool.after`."""
    relay.configure({"minFreeSpace": "1B"})
    ids = {queue.new(body=b"Subject: x\r\n\r\n" + b"y\r\n" * 2000) for _ in range(30)}
    small = relay.directory / "small"
    small.mkdir()
    script = (
        f'mount -t tmpfs -o size=100k,mode=700 none {small} && "$@"; code=$?'
        f"; cp -a {small}/spool {small}.after; exit $code"
    )
    under = (*with_own_mounts(), "sh", "-c", script, "sh")
    done = relay.mailer("spool", "move", "--all", "--to-spool", str(small / "spool"), under=under)
    assert (done.returncode, "failed" in done.stderr, "waiting" in done.stderr) == (75, True, False)
    here, there = owned(relay.spool).keys(), owned(Path(f"{small}.after")).keys()
    assert (here | there, here & there) == (ids, set())
    assert there
    assert not any(
        found.is_parked for root in (relay.spool, Path(f"{small}.after")) for found in walk(root).values()
    )


def test_doctor_and_health_count_what_is_between_two_spools_among_other_mail(
    relay: Relay, queue: Queue, other: Relay
) -> None:
    queue.new()
    queue.fail(failed := queue.new(), "550 5.1.1 unknown", "bob@example.net")
    assert relay.mailer("spool", "move", "--all", "--via", cut(other)).returncode == 75
    assert walk(relay.spool)[failed].place == "failed"
    for _ in range(250):
        queue.hold(queue.new(), "asked the customer first")
    assert relay.mailer("doctor", "--all").stdout.count("1 message between two spools") == 2
    with relay.monitor():
        said = ask(relay.http_port, "/health").json["checks"]["held"]["message"]
    assert said.startswith("251 messages are held; 2 messages between two spools")


def test_an_operator_takes_what_the_other_spool_will_never_send(
    relay: Relay, queue: Queue, other: Relay
) -> None:
    waits = queue.new()
    assert relay.mailer("spool", "move", "--all", "--via", cut(other)).returncode == 75
    done = relay.mailer("spool", "move", "--take", waits)
    assert (done.returncode, done.stdout) == (0, f"{waits} taken (was in hold/)\n"), done.stderr
    assert relay.mailer_send("--once").returncode == 0
    assert len(relay.delivered()) == 1
    assert walk(other.spool)[waits].is_parked
    assert other.mailer("spool", "rm", waits).returncode == 0
    assert relay.mailer("spool", "move", "--take", waits).returncode == 66


def test_with_runners_at_work_and_programs_killed_each_message_arrives_once(
    relay: Relay, queue: Queue, other: Relay
) -> None:
    """`MAILER_MOVE_MESSAGES=10000` is the long form."""
    names = [queue.new(body=b"Subject: %d\r\n\r\n" % number) for number in range(MESSAGES)]
    chance = random.Random(20)
    wanted = max(4, MESSAGES // 100)
    kills: Counter[str] = Counter()
    at_work = False
    with ExitStack() as running:
        while walk(relay.spool) or len(kills) < 2:
            if not walk(relay.spool):
                names.append(queue.new(body=b"Subject: %d\r\n\r\n" % len(names)))
            for options in (("--all",), ("--resume",)):
                argv = [sys.executable, "-m", "mailer", "spool", "move", "--config", str(relay.config)]
                moving = subprocess.Popen(
                    [*argv, *options, "--to-spool", str(other.spool)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                side = "source" if kills.total() % 2 else "target"
                place = relay.spool / ("new" if options == ("--all",) else "hold")
                if kills.total() < wanted and _kill(moving, side, place, chance):
                    kills[side] += 1
                assert moving.wait() in {0, 75, -signal.SIGKILL}
            if not at_work and len(kills) == 2 and kills.total() >= wanted // 2:
                at_work = True
                running.enter_context(relay.watch())
                running.enter_context(other.watch())
        if not at_work:
            running.enter_context(other.watch())
        until(lambda: not walk(other.spool), "everything is sent")
    arrived = Counter(
        message.partition(b"Subject: ")[2].splitlines()[0]
        for message in (*relay.delivered(), *other.delivered())
    )
    assert arrived == Counter(b"%d" % number for number in range(len(names)))
    assert len(other.delivered()) > 0
    assert set(kills) == {"source", "target"}


def _kill(moving: "subprocess.Popen[bytes]", side: str, place: Path, chance: random.Random) -> bool:
    """Kill the source or the target once some messages have left a directory; return whether it was alive."""
    before = _files_in(place)
    some = chance.randrange(1, 2 + min(100, before // 4))
    until(lambda: _files_in(place) <= before - some or moving.poll() is not None, "some messages move")
    victim = moving.pid if side == "source" else _child_of(moving)
    if moving.poll() is not None or not victim:
        return False
    os.kill(victim, signal.SIGKILL)
    return True


def _files_in(place: Path) -> int:
    return sum(1 for _ in place.iterdir())


def _child_of(parent: "subprocess.Popen[bytes]") -> int:
    try:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0
