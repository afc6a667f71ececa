"""The ledger's directory is full, or gone, and mail flows through every program all the same."""

import json
import re
import shutil
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from outbound.sending import SENDER, TO, queue
from spools.walk import walk
from testbed.capability import with_own_mounts
from testbed.http_client import ask
from testbed.ports import LOOPBACK
from testbed.relay import Relay
from testbed.waiting import until

pytestmark = pytest.mark.fault_row(26)

LOST = "the ledger cannot be written; no mail depends on it"
TEXT = b"From: app@example.com\r\nSubject: hello\r\n\r\nhello\r\n"


def full(relay: Relay) -> tuple[str, ...]:
    """Run a command that sees `log/` on a filesystem of its own, without a free page."""
    log = relay.spool / "log"
    script = (
        f"mount -t tmpfs -o size=4k,mode=0700 none {log} && printf x >{log}/filler"
        f'; dd if=/dev/zero of={log}/filler bs=4k 2>/dev/null; exec "$@"'
    )
    return (*with_own_mounts(), "sh", "-c", script, "sh")


def submit(relay: Relay) -> None:
    with relay.connect() as session:
        session.sendmail(SENDER, [TO], TEXT)


@pytest.fixture
def spooled(relay: Relay) -> Relay:
    """A relay whose spool is there."""
    assert relay.mailer_send().returncode == 0
    return relay


def test_the_receiver_takes_mail_while_the_ledger_is_full(spooled: Relay) -> None:
    with spooled.serve(under=full(spooled)) as process:
        for _ in range(3):
            submit(spooled)
        until(lambda: LOST in process.output(), "the operator to be told")
        assert process.output().count(LOST) == 1
    assert len(walk(spooled.spool)) == 3
    assert list((spooled.spool / "log").glob("*.jsonl")) == []


@pytest.mark.parametrize("mode", ["--once", "--watch"])
def test_the_runner_delivers_while_the_ledger_is_full(spooled: Relay, mode: str) -> None:
    for _ in range(3):
        queue(spooled.spool)
    if mode == "--once":
        done = spooled.mailer_send("--once", "--verbose", under=full(spooled))
        assert done.returncode == 0
        assert done.stderr.count(LOST) == 1
    else:
        with spooled.watch(under=full(spooled)):
            until(lambda: len(spooled.delivered()) == 3, "all mail to be delivered")
    assert len(spooled.delivered()) == 3
    assert walk(spooled.spool) == {}


def test_the_commands_say_that_the_ledger_lacks_lines(spooled: Relay, tmp_path: Path) -> None:
    """`mailer log` alone would deny mail that was delivered."""
    queue(spooled.spool)
    steps = tmp_path / "steps.sh"
    mailer = f"{sys.executable} -m mailer"
    steps.write_text(f'"$@"; {mailer} log --to {TO} 2>&1; {mailer} doctor --offline\n')
    done = spooled.mailer_send("--once", under=(*full(spooled), "sh", str(steps)))
    assert len(spooled.delivered()) == 1
    log, doctor = done.stdout.split("\n", 2)[1:]
    assert re.match(r"lines since 20\S+Z could not be written: make room in \S+/log", log), done.stdout
    assert re.search(r"warning ledger +\S+/log: lines since 20\S+Z could not be written", doctor), doctor


def test_health_says_that_the_ledger_lacks_lines(spooled: Relay) -> None:
    (spooled.spool / "log" / "lost.2026-11-30T22:20:03Z").touch(0o600)
    with spooled.monitor():
        check = ask(spooled.http_port, "/health").json["checks"]["ledger"]
    assert check["status"] == "degraded"
    assert check["message"].startswith("lines since 2026-11-30T22:20:03Z could not be written")


def test_a_run_after_the_outage_tells_what_the_runs_in_it_have_lost_as_a_gap(
    spooled: Relay, tmp_path: Path
) -> None:
    told, steps = tmp_path / "told", tmp_path / "steps.sh"
    spooled.configure({"onEvent": {"command": ["/bin/sh", "-c", f"cat >>{told}"]}})
    assert spooled.mailer_send("--once").returncode == 0
    queue(spooled.spool)
    mailer = f"{sys.executable} -m mailer"
    steps.write_text(
        f'"$@" && {mailer} events status; echo "exit $?"\n'
        f"rm {spooled.spool}/log/filler; {mailer} pause; {mailer} resume\n"
        f'"$@" && {mailer} events status; echo "exit $?"\n{mailer} log'
    )
    done = spooled.mailer_send("--once", under=(*full(spooled), "sh", str(steps)))
    during, after, log = re.split(r"exit \d\n", done.stdout)
    assert re.findall(r"exit (\d)\n", done.stdout) == ["1", "0"], done
    assert "all events are delivered\nevents since " in during
    assert "are lost until the ledger can be written again" in during
    assert "all events are delivered\nlast taken " in after
    assert "gap: events between " in after
    (event,) = map(json.loads, told.read_text().splitlines())
    assert event["event"] == "gap"
    assert event["since"] < event["until"] == event["at"]
    assert [line.split()[3] for line in log.splitlines()] == ["lost", "paused", "resumed"], log


def test_the_operators_commands_work_while_the_ledger_is_full(spooled: Relay) -> None:
    message = queue(spooled.spool)
    for verb, place in (("hold", "hold"), ("release", "new"), ("rm", None)):
        done = spooled.mailer("spool", verb, message, under=full(spooled))
        assert done.returncode == 0, done.stderr
        assert LOST in done.stderr
        left = walk(spooled.spool).get(message)
        assert (left and left.place) == place
    assert spooled.mailer("log", under=full(spooled)).returncode == 0


def test_all_programs_go_on_without_the_directory_and_make_the_next_one(relay: Relay, free_port: int) -> None:
    relay.configure({"enableHealthCheck": True, "healthCheckPort": free_port})
    log = relay.spool / "log"

    def total() -> int:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{free_port}/metrics", timeout=60) as answer:
            told: dict[str, int] = json.loads(answer.read())
        return told["total_emails"]

    with relay.up() as process:
        process.await_port(free_port)
        submit(relay)
        until(lambda: len(relay.delivered()) == 1, "the first message")
        until(lambda: total() == 1, "the monitor to count it")
        shutil.rmtree(log)
        log.touch()  # so that it cannot be made again
        # Each program looks for the directory once a second, and tells what it misses.
        sent = submit_until(lambda: process.output().count(LOST) == 2, relay)
        submit(relay)
        until(lambda: len(relay.delivered()) == 1 + sent + 1, "all messages without a ledger")
        assert total() == 1
        log.unlink()
        submit_until(
            lambda: log.is_dir() and b'"accepted"' in b"".join(map(Path.read_bytes, log.iterdir())), relay
        )
        until(lambda: total() > 1, "the monitor to count on")


def submit_until(happens: Callable[[], bool], relay: Relay) -> int:
    """Submit messages until it happens; return how many."""
    sent = 0

    def once_more() -> bool:
        nonlocal sent
        if happens():
            return True
        submit(relay)
        sent += 1
        return False

    until(once_more, "the programs to see the directory as it is")
    return sent
