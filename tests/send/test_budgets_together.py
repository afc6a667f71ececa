"""Eight real runners share a strict provider's allowance, and some are killed, by a clock that runs fast.

`MAILER_PACE_SECONDS=300` lets them work for so many real seconds, by a clock that runs slower, and asks for
98 % of the allowance; as it is, it waits for 80 messages, on a machine however busy.
"""

import os
import threading
import time
from contextlib import ExitStack

import pytest
from outbound.hostile import Server, Session, established
from outbound.sending import queue
from testbed.faketime import fast_clock
from testbed.ports import LOOPBACK
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.waiting import until

SECONDS = float(os.environ.get("MAILER_PACE_SECONDS", "0"))
SPEED = 5 if SECONDS else 40
RUNNERS = 8
PER_MINUTE = 30
SESSIONS = 3


class Strict:
    """Takes 30 recipients in any minute of the fast clock, from 3 sessions; notes what it refuses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken: list[float] = []
        self.throttled: list[str] = []
        self.server = Server({"banner": self._greet, "rcpt": self._count})

    def _greet(self, _session: Session, _line: bytes) -> str | None:
        alive = established(self.server)
        if alive <= SESSIONS:
            return None
        self.throttled.append(f"{alive} sessions")
        return "421 4.7.0 Too many concurrent connections"

    def _count(self, _session: Session, _line: bytes) -> str | None:
        with self._lock:
            now = time.monotonic()
            within = sum(moment > now - 60 / SPEED for moment in self.taken)
            if within < PER_MINUTE:
                self.taken.append(now)
                return None
            self.throttled.append(f"{within} within a minute")
            return "450 4.2.1 You are sending too fast"


def test_8_runners_of_whom_some_are_killed_are_never_throttled(relay: Relay) -> None:
    strict = Strict()
    with strict.server as server, fast_clock(SPEED) as fast, ExitStack() as running:
        provider = {
            "host": LOOPBACK,
            "port": server.port,
            "maxPerMinute": PER_MINUTE,
            "maxSessions": SESSIONS,
        }
        relay.configure({"forwardSMTP": True, "forwardProviders": [provider]})
        for _ in range(int(SECONDS * 4) + 150):
            queue(relay.spool)

        def start() -> ServerProcess:
            return running.enter_context(relay.watch(under=fast))

        runners = [start() for _ in range(RUNNERS)]
        for goal in (15, 35, 50):
            until(lambda goal=goal: len(strict.taken) >= goal, f"{goal} messages to be taken")
            runners.pop(0).kill()
            runners.append(start())
        until(lambda: len(strict.taken) >= 80, "80 messages to be taken")
        if SECONDS:
            before = len(strict.taken)
            time.sleep(SECONDS)
            # From a message to the one that took its place last: mail leaves in bursts.
            minutes = (len(strict.taken) - before) // PER_MINUTE
            began = strict.taken[-1 - minutes * PER_MINUTE]
            assert minutes * 60 / ((strict.taken[-1] - began) * SPEED) >= 0.98
    assert strict.throttled == []


pytestmark = pytest.mark.usefixtures("unmeasured")
