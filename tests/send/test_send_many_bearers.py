"""Runners as cron starts them, many at once and killed at random, share one access token for its lifetime.

`MAILER_RUNNERS=64 MAILER_MESSAGES=10000` has as many as a large host.
"""

import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from outbound.hostile import Server
from outbound.sending import queue
from spools.walk import QUEUE, walk
from testbed.faketime import faketime
from testbed.ports import LOOPBACK
from testbed.relay import Relay, mailer_send_command
from testbed.token_server import TokenServer
from testbed.waiting import until

RUNNERS = int(os.environ.get("MAILER_RUNNERS", "8"))
MESSAGES = int(os.environ.get("MAILER_MESSAGES", "160"))
LIFETIMES = 2
AT_ONCE = 20
"""Messages of one run, at most: then the next one starts."""
KILLS = max(3, MESSAGES // 100)
"""In each lifetime."""
SECRET = "s3cret~of-the.application"


class Cron:
    """Starts one run after the other, in so many places at once, until nothing is ready."""

    def __init__(self, relay: Relay, environment: dict[str, str], hours: int) -> None:
        self._argv = [*self.command(relay, hours), "--limit", str(AT_ONCE)]
        self._environment = os.environ | environment
        self._new = relay.spool / "new"
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self.codes: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._work) for _ in range(RUNNERS)]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def command(relay: Relay, hours: int) -> list[str]:
        """A run by a clock that is so far ahead."""
        return [*faketime(f"+{hours}h"), *mailer_send_command(), "--once", "--config", str(relay.config)]

    def _work(self) -> None:
        while any(self._new.iterdir()):
            with subprocess.Popen(self._argv, env=self._environment) as run:
                with self._lock:
                    self._running.add(run)
                code = run.wait()
                with self._lock:
                    self._running.discard(run)
                    self.codes[code] += 1

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def kill(self, draw: Random) -> None:
        """Kill one of the runs, whatever it is doing, if there is one."""
        with self._lock:
            # Nobody has waited for these, so their ids are theirs.
            alive = sorted(self._running, key=lambda run: run.pid)
            if alive:
                draw.choice(alive).send_signal(signal.SIGKILL)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_runners_that_are_killed_at_random_ask_for_one_token_a_lifetime_and_lose_nothing(
    relay: Relay, tmp_path: Path
) -> None:
    draw, shown = Random(15), set[str]()
    with TokenServer(client_secret=SECRET, lasts=3600) as tokens:

        def good(token: str) -> bool:
            shown.add(token)
            return token in tokens.access

        with Server(auth="XOAUTH2", bearers=good) as server:
            relay.configure(settings(server, tokens))
            environment = tokens.trust(tmp_path)
            sent, killed = set[str](), 0
            for lifetime in range(LIFETIMES):
                sent |= {one(relay, len(sent) + number) for number in range(MESSAGES // LIFETIMES)}
                cron = Cron(relay, environment, 2 * lifetime)
                # A runner that is killed while it asks leaves it to another to ask once more.
                wait(cron, lambda: bool(shown & tokens.access))
                kill_some(cron, server, draw)
                cron.join()
                killed += cron.codes[-signal.SIGKILL]
                assert set(cron.codes) <= {0, -signal.SIGKILL}
                assert tokens.asked() == lifetime + 1
                tokens.revoke()
            # What was in a killed runner's hands is tried again when it is due.
            for hours in (2 * LIFETIMES, 2 * LIFETIMES + 1):
                last = Cron.command(relay, hours)
                assert subprocess.run(last, env=os.environ | environment, check=False).returncode == 0
    assert walk(relay.spool, QUEUE) == {}, "nothing is left, held, or given up"
    arrived = Counter(each.body.partition(b"\r\n")[0].decode() for each in server.messages)
    assert arrived.keys() == sent
    twice = sum(count - 1 for count in arrived.values())
    assert twice <= killed * AT_ONCE


def wait(cron: Cron, seen: Callable[[], bool]) -> None:
    """Wait for something that a runner does, or until none is at work any more."""
    until(lambda: seen() or not cron.busy, "what a runner does", patience=600)


def kill_some(cron: Cron, server: Server, draw: Random) -> None:
    """Kill runners while mail goes out, one after the other."""
    before = len(server.messages)
    for number in range(KILLS):
        share = before + number * (MESSAGES // LIFETIMES) // KILLS
        wait(cron, partial(lambda share: len(server.messages) >= share, share))
        cron.kill(draw)


def settings(server: Server, tokens: TokenServer) -> dict[str, Any]:
    auth = {
        "type": "oauth2",
        "grant": "clientCredentials",
        "tokenUrl": tokens.url,
        "clientId": "app",
        "clientSecret": SECRET,
        "scope": "mail",
    }
    provider = {"host": LOOPBACK, "port": server.port, "username": "relay@example.com", "auth": auth}
    return {"forwardSMTP": True, "forwardProviders": [provider], "bounce": "sender"}


def one(relay: Relay, number: int) -> str:
    subject = f"Subject: mail {number}"
    queue(relay.spool, [f"to{number}@example.net"], f"{subject}\r\n\r\nhello\r\n".encode())
    return subject
