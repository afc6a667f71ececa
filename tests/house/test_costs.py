"""What a message and a start-up cost, in numbers that every machine has alike: calls and imports, no time.

A change that makes one of these grow is a decision, not an accident: say in the commit what it buys, and
correct the table in `mailer/README.md` with the number here.
"""

import re
import smtplib
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest
from bench.deep import fill_retry
from inbound.receiving import running
from outbound.hostile import Server
from outbound.sending import MESSAGE, SENDER, TO, forward_to, queue
from spools.moves import MOVE, WHOLE
from spools.strace import attach, calls_in
from testbed.capability import tracer
from testbed.ports import LOOPBACK
from testbed.relay import Relay

import mailer
from mailer.cli.spool.ls import line
from mailer.spool.directory import Spool
from mailer.spool.view.summary import summaries

OURS = f"{Path(mailer.__file__).parent}/"
pytestmark = pytest.mark.usefixtures("unmeasured")

FEW, MANY = 4, 54
"""Of messages: what the difference costs, is what they cost; a program's start and end are not counted."""

FILES = "openat,flock,write,pwrite64,pread64,fsync,fdatasync,fallocate,renameat2,linkat,unlinkat,close"
LOOKS = "newfstatat,fstat"
BY_TIME = ("newfstatat", "fstat", "fsync")
MESSAGE_ID = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")

SHARED = 0.45
"""A message's share of what is done once a second, or for a group, at most."""

ACCEPTED = {
    "openat": 1,  # tmp/ID; new/ is kept open
    "flock": 1,
    "renameat2": 1,
    "close": 1,
    "fsync": 2,  # the file and new/
    "pread64": 0,
    "pwrite64": 0,
    "fallocate": 0,
    "unlinkat": 0,
}
ACCEPTED_WRITES = 2
"""The file and the ledger; what goes to the client and to standard error is counted apart."""

DELIVERED = {
    "openat": 1,
    "flock": 1,
    MOVE: 1,  # new/ to cur/
    "pread64": 1,  # envelope, message and journal in one
    "fallocate": 1,  # room for the outcome, before the dot
    "write": 3,  # `committing`, the outcome, the ledger
    "unlinkat": 1 if WHOLE else 2,  # each name
    "close": 0,  # those of many messages are one `close_range`
    "sendto": 1,  # the message, its dot, and the commands of the next one behind it
    "fsync": 0,
    "fdatasync": 0,
    "pwrite64": 0,
}


def each(more: Counter[str], fewer: Counter[str]) -> dict[str, float]:
    return {name: (more[name] - fewer[name]) / (MANY - FEW) for name in more | fewer}


def compare(measured: dict[str, float], expected: dict[str, int]) -> None:
    for name, count in expected.items():
        assert abs(measured.get(name, 0) - count) <= SHARED, (name, measured)


def accepted(relay: Relay, trace: Path, count: int) -> Counter[str]:
    """Submit so many messages over one connection, and count the server's calls from start to end."""
    with relay.serve() as server:
        watcher = attach(server.pid, trace, trace=FILES)
        with relay.connect() as client:
            for _ in range(count):
                client.sendmail(SENDER, [TO], MESSAGE)
        server.stop()
        watcher.communicate()
    # tmp/ is synced by time, not for each message.
    calls = [call for call in calls_in(trace) if call.name != "fsync" or not call.path.endswith("/tmp")]
    # Those of the server are to sockets, to standard error and to what wakes a loop.
    return Counter(call.name if call.name != "write" or "/spool/" in call.path else "said" for call in calls)


def test_an_accepted_message_costs_two_fsyncs_and_a_handful_of_calls(relay: Relay, tmp_path: Path) -> None:
    few = accepted(relay, tmp_path / "few", FEW)
    measured = each(accepted(relay, tmp_path / "many", MANY), few)
    compare(measured, ACCEPTED)
    assert measured["write"] == ACCEPTED_WRITES, measured
    # The group of one: messages that come together share the directory's fsync, which `test_spool_committer`
    # counts.


RECEIVING_CALLS = 157
"""Of Python functions of ours, for an accepted message over a connection that stays, at most: 152 today, and
fewer where Python inlines comprehensions. The committer's thread is not counted."""


def test_an_accepted_message_costs_few_calls_of_python(tmp_path: Path) -> None:
    called = 0

    def count_ours(frame: FrameType, event: str, _: object) -> None:
        nonlocal called
        called += event == "call" and frame.f_code.co_filename.startswith(OURS)

    with running(tmp_path) as receiver, smtplib.SMTP(*receiver.address) as client:
        client.sendmail(SENDER, [TO], MESSAGE)  # What only the first one needs is not counted.
        receiver.loop.call_soon_threadsafe(sys.setprofile, count_ours)
        for _ in range(MANY):
            client.sendmail(SENDER, [TO], MESSAGE)
        receiver.loop.call_soon_threadsafe(sys.setprofile, None)
        client.noop()
    assert 0 < called / MANY <= RECEIVING_CALLS, called / MANY


def delivered(relay: Relay, trace: Path, count: int) -> Counter[str]:
    with Server() as server:
        # One session: else the larger queue opens more of them.
        relay.configure(forward_to(server, sending={"maxSessionsPerHop": 1}))
        for _ in range(count):
            queue(relay.spool)
        done = relay.mailer_send(
            "--once", under=(tracer(), "-f", "-y", "-o", str(trace), "-e", f"trace={FILES},{LOOKS},sendto")
        )
        assert done.returncode == 0, done.stderr
        assert len(server.delivered()) == count
    # Directories are looked at and synced some times a second: how often that is depends on the machine.
    return Counter(
        c.name for c in calls_in(trace) if c.name not in BY_TIME or MESSAGE_ID.search(c.path + c.arguments)
    )


def test_a_delivered_message_costs_one_read_three_writes_and_no_fsync(relay: Relay, tmp_path: Path) -> None:
    few = delivered(relay, tmp_path / "few", FEW)
    measured = each(delivered(relay, tmp_path / "many", MANY), few)
    compare(measured, DELIVERED)
    assert measured.get("newfstatat", 0) + measured.get("fstat", 0) <= 2 + SHARED, "the inode, and its name"


SENDING_CALLS = 398
"""Of Python functions of ours, for a message delivered behind another one's dot, at most: 392 today, and
fewer where Python inlines comprehensions."""

COUNTING = f"""
import atexit, sys
from mailer.cli.send import main

called = 0

def count_ours(frame, event, _):
    global called
    called += event == "call" and frame.f_code.co_filename.startswith({OURS!r})

atexit.register(lambda: print(called))
sys.setprofile(count_ours)
main()
"""


def sending_calls(relay: Relay, count: int) -> int:
    """Deliver so many messages over one session, and count the calls from the run's start to its end."""
    with Server() as server:
        relay.configure(forward_to(server, sending={"maxSessionsPerHop": 1, "concurrency": 2}))
        for _ in range(count):
            queue(relay.spool)
        command = [sys.executable, "-c", COUNTING, "--once", "--config", str(relay.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=relay.directory)
        assert len(server.delivered()) == count
    return int(done.stdout.split()[-1])


def test_a_delivered_message_costs_few_calls_of_python(relay: Relay) -> None:
    few = sending_calls(relay, FEW)
    each_costs = (sending_calls(relay, MANY) - few) / (MANY - FEW)
    assert 0 < each_costs <= SENDING_CALLS, each_costs


LISTING_CALLS = 27
"""Of Python functions of ours, for a line about a deferred message in a listing, at most: 25 today, and fewer
where Python inlines comprehensions. What is said of all messages of a bucket is said once."""


def test_a_listed_message_costs_few_calls_of_python(tmp_path: Path) -> None:
    fill_retry(tmp_path / "spool", MANY)
    now, called = time.time() + 60, 0

    def count_ours(frame: FrameType, event: str, _: object) -> None:
        nonlocal called
        called += event == "call" and frame.f_code.co_filename.startswith(OURS)

    with Spool.open(tmp_path / "spool") as spool:
        assert len([line(one, now) for one in summaries(spool, now)]) == MANY  # what only the first needs
        sys.setprofile(count_ours)
        for one in summaries(spool, now):
            line(one, now)
        sys.setprofile(None)
    assert 0 < called / MANY <= LISTING_CALLS, called / MANY


UNNEEDED = {
    "aiohttp",
    "aiosmtpd",
    "cryptography",
    "dkim",
    "dns",
    "email",
    "html",
    "http",
    "idna",
    "mailer.monitor",
    "mailer.receive",
    "mailer.send.dkim.keys",
    "mailer.send.dsn.report",
    "mailer.send.resolver",
    "multiprocessing",
    "prometheus_client",
    "tomli",
    "tomllib",
    "unittest",
    "uvloop",
    "xml",
}
"""What a run through a provider does without; each costs from 2 to 60 ms, every minute."""


def test_a_run_that_finds_mail_imports_only_what_it_needs(relay: Relay) -> None:
    """What one imports that finds none is in `test_idle_run.py`."""
    relay.configure(forward_to(9))
    queue(relay.spool)
    program = """
import atexit, sys
atexit.register(lambda: print(*sys.modules))
from mailer.cli.send import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "--once", "--config", str(relay.config)],
        capture_output=True,
        text=True,
        check=True,
        cwd=relay.directory,
    )
    imported = set(done.stdout.split())
    assert "mailer.send.runner" in imported
    assert UNNEEDED & imported == set()
    assert len(imported) < 455, "modules in all; 445 today"


def test_a_client_that_sends_one_command_at_a_time_gets_each_reply_in_one_write(
    relay: Relay, tmp_path: Path
) -> None:
    commands = ("EHLO client.example", *["NOOP"] * 10, "RSET")
    with relay.serve() as server:
        watcher = attach(server.pid, tmp_path / "trace", trace="write,sendto,sendmsg,writev")
        with smtplib.SMTP(LOOPBACK, relay.port, timeout=60) as client:
            for command in commands:
                assert client.docmd(command)[0] == 250
        server.stop()
        watcher.communicate()
    to_client = [call for call in calls_in(tmp_path / "trace") if call.path.startswith("socket:")]
    assert len([call for call in to_client if '"250' in call.arguments]) == len(commands)
