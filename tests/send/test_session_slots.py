"""Connections that other runners keep: mail does not wait for them without end."""

import fcntl
import os
from pathlib import Path

from outbound.hostile import Server
from outbound.sending import found, queue
from testbed.faketime import faketime
from testbed.ports import LOOPBACK
from testbed.relay import Relay

from mailer.spool.layout import STATE


def test_mail_waits_a_minute_for_connections_that_a_stopped_program_keeps(relay: Relay) -> None:
    """Then it is in `retry/`, that was no attempt, and nothing is held against the provider."""
    with Server() as server:
        provider = {"name": "Acme", "host": LOOPBACK, "port": server.port, "maxSessions": 1}
        relay.configure({"forwardSMTP": True, "forwardProviders": [provider]})
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        fd = _take(relay.spool / STATE, "4711")
        waiting = [queue(relay.spool) for _ in range(3)]
        assert relay.mailer_send("--once", under=faketime("+0 x60")).returncode == 0
        for message in waiting:
            left = found(relay.spool, message)
            assert left is not None
            assert left.place == "retry"
            event = left.events[-1]
            assert "none of the 1 connections that maxSessions allows to " in event["reply"]
            assert event["reply"].endswith("was free for 60 s; in use by process 4711")
            assert "attempt" not in event
        assert "in use by process 4711" in relay.mailer("spool", "why", waiting[0]).stdout
        os.close(fd)
        relay.mailer("spool", "retry", "--all")
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.messages) == 4


def _take(state: Path, process: str) -> int:
    """Keep the only slot, as a runner of that number would."""
    [slot] = [path for path in state.glob("session-*") if not path.name.endswith("wanted")]
    fd = os.open(slot, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, f"{process}\n".encode())
    return fd
