"""What a message costs in instructions of the processor, counted by cachegrind: nearly the same each time.

It sees what counts of calls do not: one more copy, a slower pattern, a library's detour. Those of the kernel
are not counted. The bounds hold for Debian 12's Python. A change that exceeds one is a decision: say in
the commit what it buys.
"""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bench.deep import fill_retry
from outbound.hostile import Server
from outbound.sending import MESSAGE, SENDER, TO, forward_to, queue
from testbed.relay import Relay
from testbed.tools import program

pytestmark = [
    pytest.mark.usefixtures("unmeasured"),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bounds are those of Python 3.11"),
]

FEW, MANY = 20, 120
"""Of messages: what the difference costs, is what they cost; a program's start and end are not counted."""
MORE = 10
"""Times as many messages in a listing, where one costs little beside the start."""

ACCEPTED, DELIVERED, LISTED = 540_000, 900_000, 112_000
"""Instructions for a message, at most: 510,000, 844,000 and 103,000 today; two runs differ by 1 %."""


Work = Callable[[int, list[str]], None]
"""Deals with so many messages, with a command that runs the program."""


def each(work: Work, result: Path) -> float:
    """Return what one more message costs."""
    work(FEW, [])  # Python compiles what it finds uncompiled.
    counts = []
    for messages in (FEW, MANY):
        result.unlink(missing_ok=True)
        options = ("--cache-sim=no", "--cachegrind-out-file=/dev/null", f"--log-file={result}")
        work(messages, [program("valgrind"), "--tool=cachegrind", *options])
        found = re.search(r"I\s+refs:\s+([\d,]+)", result.read_text())
        assert found, result.read_text()
        counts.append(int(found[1].replace(",", "")))
    return (counts[1] - counts[0]) / (MANY - FEW)


def test_an_accepted_message_costs_few_instructions(relay: Relay, tmp_path: Path) -> None:
    def accept(messages: int, under: list[str]) -> None:
        with relay.serve(under=under), relay.connect() as client:
            for _ in range(messages):
                client.sendmail(SENDER, [TO], MESSAGE)

    assert 0 < each(accept, tmp_path / "result") <= ACCEPTED


def test_a_delivered_message_costs_few_instructions(relay: Relay, tmp_path: Path) -> None:
    def deliver(messages: int, under: list[str]) -> None:
        with Server() as server:
            relay.configure(forward_to(server, sending={"maxSessionsPerHop": 1, "concurrency": 2}))
            for _ in range(messages):
                queue(relay.spool)
            done = relay.mailer_send("--once", under=under)
            assert done.returncode == 0, done.stderr
            assert len(server.delivered()) == messages

    assert 0 < each(deliver, tmp_path / "result") <= DELIVERED


def test_a_listed_message_costs_few_instructions(relay: Relay, tmp_path: Path) -> None:
    def list_all(messages: int, under: list[str]) -> None:
        fill_retry(relay.spool, messages * MORE)
        listed = relay.mailer("spool", "ls", under=under)
        assert len(listed.stdout.splitlines()) > messages * MORE
        shutil.rmtree(relay.spool)

    assert 0 < each(list_all, tmp_path / "result") / MORE <= LISTED
