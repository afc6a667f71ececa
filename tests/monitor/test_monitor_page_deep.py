"""However much is queued, a page costs what it shows. MAILER_PAGE_QUEUE=100000 is the long form."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spools.states import HOP, Queue
from testbed.capability import attacher
from testbed.http_client import Answer, ask
from testbed.relay import Relay
from testbed.waiting import until

from mailer.mail import clock
from mailer.monitor.results import _SAMPLE, WAITING
from mailer.spool import journal
from mailer.spool.ids import new_id
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import bucket_for

QUEUED = int(os.environ.get("MAILER_PAGE_QUEUE", "20000"))
_PER_BUCKET = 1000
_CALL = re.compile(r"^\d+ +([\d.]+) (openat|pread64)\((.*)\) += (\d+)$")
_MESSAGE = re.compile(r'/[0-9A-HJKMNP-TV-Z]{26}"')


@dataclass(frozen=True)
class Cost:
    """What a request made the monitor do."""

    files: int
    """Message files opened."""
    read: int
    """Octets read at a place: of messages, and of the ledger."""


class Watched:
    """A monitor whose system calls are written down."""

    def __init__(self, port: int, log: Path) -> None:
        self._port = port
        self._log = log
        self._requests: list[tuple[str, float, float]] = []

    def ask(self, path: str) -> Answer:
        began = time.time()
        answer = ask(self._port, path)
        self._requests.append((path, began, time.time()))
        return answer

    def costs(self) -> Iterator[tuple[str, Cost]]:
        """Say what each request cost; asked after the watching."""
        calls = [
            found.groups() for line in self._log.read_text().splitlines() if (found := _CALL.match(line))
        ]
        for path, began, ended in self._requests:
            mine = [call for call in calls if began <= float(call[0]) <= ended]
            files = sum(call[1] == "openat" and bool(_MESSAGE.search(call[2])) for call in mine)
            yield path, Cost(files, sum(int(call[3]) for call in mine if call[1] == "pread64"))


@contextmanager
def watching(pid: int, port: int, log: Path) -> Iterator[Watched]:
    argv = [
        attacher(),
        "-f",
        "-ttt",
        "-s",
        "4096",
        "-e",
        "trace=openat,pread64",
        "-o",
        str(log),
        "-p",
        str(pid),
    ]
    strace = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        until(
            lambda: ask(port, "/").status == 200 and log.exists() and log.stat().st_size, "strace to see it"
        )
        yield Watched(port, log)
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(60)


def fill(states: Queue, number: int) -> list[str]:
    """Put a third of so many messages into `new/`, and the others into buckets of `retry/`."""
    root, now, ids = states.spool.path, time.time(), []
    for count in range(number):
        # One a second apart, so that the ids tell their order.
        ids.append(states.new(f"user{count}@example.net", received=now - number + count))
        if count % 3:
            due = now + 3600 + 60 * (count // _PER_BUCKET)
            bucket = root / "retry" / bucket_for(due)
            bucket.mkdir(mode=0o700, exist_ok=True)
            event = Event(
                at=clock.rfc3339(now), event=Kind.DEFERRED, to=(f"user{count}@example.net",), hop=HOP,
                reply="451 4.7.1 later", attempt=1, next=clock.rfc3339(due),
            )  # fmt: skip
            with (root / "new" / ids[-1]).open("ab") as file:
                file.write(journal.encode(event))
            (root / "new" / ids[-1]).rename(bucket / ids[-1])
    return ids


def test_a_page_opens_what_it_shows_and_no_more(relay: Relay, tmp_path: Path) -> None:
    ids = fill(Queue(relay.spool), QUEUED)
    absent = new_id(time.time())
    most = {
        "/": 0,
        "/queue/new": 51,
        "/queue/retry": 51,
        "/queue/retry?order=newest": 51,
        f"/queue/retry?after={ids[QUEUED // 2]}": 51,
        f"/message/{ids[1]}": 3,
        f"/message/{absent}": 0,
        f"/search?q={ids[5][:16]}": 51,
        "/search?q=nobody": 1000,
        "/search?q=example.net": 1000,
    }
    with relay.monitor() as monitor:
        with watching(monitor.pid, relay.http_port, tmp_path / "trace") as watched:
            for path in most:
                answer = watched.ask(path)
                assert answer.status == (404 if absent in path else 200), path
                assert len(answer.body) < 100_000, path
            overview = watched.ask("/").body.decode()
            cut = watched.ask("/search?q=nobody").body.decode()
        costs = list(watched.costs())
    assert f'href="/queue/retry">retry</a></th><td class="n">{QUEUED - -(-QUEUED // 3):,}</td>' in overview
    # A thousand, or as many as a busy machine opens in its time.
    assert re.search(r"Only [\d,]+ files of the queue were opened", cut)
    assert costs[1][1].files > 0, "the trace shows files"
    for path, cost in costs:
        # Health, which each look judges, opens the oldest messages: a look may fall into any request.
        allowed = most[path] + _SAMPLE * len(WAITING)
        assert cost.files <= allowed, path
        assert cost.read <= 64 * 1024 * allowed, path


def test_paging_shows_every_message_once_in_order(relay: Relay) -> None:
    ids = fill(Queue(relay.spool), 240)
    retry = [each for count, each in enumerate(ids) if count % 3]
    with relay.monitor():
        for order, expected in (("", retry), ("?order=newest", retry[::-1])):
            target, found = f"/queue/retry{order}", list[str]()
            while target:
                page = ask(relay.http_port, target).body.decode()
                found += re.findall(r'href="/message/([^"]+)"', page)
                [target] = re.findall(r'href="([^"]+)">more<', page) or [""]
                target = target.replace("&amp;", "&")
            assert found == expected
