"""kill -9 of the real receiver at every system call with which it takes a message.

`test_spool_kill` kills the spool's part alone, `test_kill` the whole at random moments; here each moment
has its turn, with a client that submits and a receiver as its operator starts it.
"""

import quopri
import signal
import smtplib
from pathlib import Path

import pytest
from spools.strace import attach
from spools.walk import walk
from testbed.relay import USERNAME, Relay

pytestmark = pytest.mark.fault_row(1)

FIELDS = b"From: <app@example.com>\r\nDate: Mon, 23 Nov 2026 08:00:00 +0000\r\nMessage-ID: <1@b.c>\r\n\r\n"
"""All that the receiver would add otherwise."""
TO = "bob@example.net"
WARM = FIELDS + b"the modules are loaded now\r\n"
SMALL = FIELDS + b"hello\r\n"
STREAMED = FIELDS + b"0123456789\r\n" * 25_000
"""Longer than the receiver keeps in memory: its length is written last."""
ONE_LINE = FIELDS + b"0123456789" * 10_000 + b"\r\n"
"""Encoded, and so written twice."""
ENCODED = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
NAMES = {SMALL: "small", STREAMED: "streamed", ONE_LINE: "one line"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((call, SMALL) for call in ("openat", "flock", "write", "fsync", "renameat2")),
        *((call, STREAMED) for call in ("write", "pwrite64")),
        *((call, ONE_LINE) for call in ("unlinkat", "pread64")),
    ],
    ids=lambda value: NAMES.get(value, value),
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
    """Kill a receiver at its n-th such call after DATA, check what is left, and return its exit status.

    Every thread counts its own calls. The status is 0 when none of them made so many.
    """
    directory.mkdir()
    relay = Relay(directory, {"longLines": "quotedPrintable"})
    with relay.serve() as receiver, relay.connect() as client:
        client.sendmail(USERNAME, [TO], WARM)
        client.mail(USERNAME)
        client.rcpt(TO)
        inject = f"{call}:signal=KILL:when={number}"
        watcher = attach(receiver.pid, directory / "trace", inject=(inject,), trace=call)
        acknowledged = _data(client, message)
        status = receiver.stop()
        watcher.communicate()
    assert acknowledged or status == -signal.SIGKILL, "a receiver that lives answers"
    left = walk(relay.spool)
    assert {found.place for found in left.values()} == {"new"}
    assert all(found.intact for found in left.values())
    # Above what was submitted stands our Received field.
    submitted = sorted(_decoded(found.message.split(b"+0000\r\n", 1)[1]) for found in left.values())
    possible = [sorted([WARM, message])] if acknowledged else [[WARM], sorted([WARM, message])]
    assert submitted in possible
    unfinished = walk(relay.spool, ("tmp",))
    assert len(left) + len(unfinished) <= 2, "a message is in one place"
    return status


def _decoded(message: bytes) -> bytes:
    head, encoded, body = message.partition(ENCODED)
    return head + b"\r\n" + quopri.decodestring(body) if encoded else message


def _data(client: smtplib.SMTP, message: bytes) -> bool:
    """Submit and hang up; return whether it was acknowledged, which it is unless the receiver dies."""
    try:
        code, _ = client.data(message)
    except smtplib.SMTPServerDisconnected:
        return False
    client.close()
    return code == 250
