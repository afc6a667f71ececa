"""kill -9 of the real receiver at every system call with which it takes a message (FAULTS row 1).

`test_spool_kill` kills the spool's part alone, `test_kill` the whole at random moments; here each moment has its
turn, with a client that submits and a receiver as its operator starts it.
"""

import signal
import smtplib
from pathlib import Path

import pytest
from spool_strace import attach
from spool_walk import walk
from testbed.relay import USERNAME, Relay

WARM = b"From: <app@example.com>\r\nSubject: warm\r\n\r\nthe modules are loaded now\r\n"
SMALL = b"From: <app@example.com>\r\nSubject: small\r\n\r\nhello\r\n"
STREAMED = b"From: <app@example.com>\r\nSubject: streamed\r\n\r\n" + b"0123456789\r\n" * 25_000
"""Longer than the receiver keeps in memory: its length is written last."""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((call, SMALL) for call in ("openat", "flock", "write", "fsync", "renameat2")),
        *((call, STREAMED) for call in ("write", "pwrite64")),
    ],
    ids=lambda value: value if isinstance(value, str) else "small" if value is SMALL else "streamed",
)
def test_a_receiver_killed_at_any_system_call_keeps_what_it_acknowledged(
    call: str, message: bytes, tmp_path: Path
) -> None:
    number, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        number += 1
        status = _kill_at(call, number, message, tmp_path / str(number))
    assert status == 0
    assert number > 1, "taking a message needs this call"


def _kill_at(call: str, number: int, message: bytes, directory: Path) -> int:
    """Kill a receiver at its n-th such call for a message, check what is left, and return its exit status.

    That is 0 when it made fewer such calls.
    """
    directory.mkdir()
    relay = Relay(directory)
    with relay.serve() as receiver:
        assert _submit(relay, WARM)
        inject = f"{call}:signal=KILL:when={number}"
        with attach(receiver.pid, directory / "trace", inject=(inject,), trace=call):
            acknowledged = _submit(relay, message)
            status = receiver.stop()
    assert acknowledged or status == -signal.SIGKILL, "a receiver that lives answers"
    left = walk(relay.spool)
    assert {found.place for found in left.values()} == {"new"}
    assert all(found.intact for found in left.values())
    # Above what was submitted stands our Received field.
    submitted = sorted(found.message.split(b"+0000\r\n", 1)[1] for found in left.values())
    possible = [sorted([WARM, message])] if acknowledged else [[WARM], sorted([WARM, message])]
    assert submitted in possible
    unfinished = walk(relay.spool, ("tmp",))
    assert len(left) + len(unfinished) <= 2, "a message is in one place"
    return status


def _submit(relay: Relay, message: bytes) -> bool:
    """Submit a message; return whether it was acknowledged, which it is unless the receiver dies."""
    try:
        with relay.connect() as client:
            return client.sendmail(USERNAME, ["bob@example.net"], message) == {}
    except smtplib.SMTPServerDisconnected:
        return False
