"""A deep queue costs a run nothing, and holds up no new mail.

Here with 20,000 messages; `MAILER_DEEP=1000000 pytest tests/send/test_send_deep_queue.py` takes a million.
"""

import os
import time
from pathlib import Path

import pytest
from outbound.hostile import Server
from outbound.sending import forward_to, queue
from testbed.capability import tracer
from testbed.proc import peak_megabytes
from testbed.relay import Relay
from testbed.waiting import until

from mailer.spool.directory import Spool
from mailer.spool.ids import new_id
from mailer.spool.layout import bucket_for

pytestmark = pytest.mark.fault_row(22)

DEEP = int(os.environ.get("MAILER_DEEP", "20000"))
LINKS = 60_000
"""Names of one file; ext4 takes 65,000."""
PER_BUCKET = 5_000
MEMORY = 150
"""MB."""


def defer(directory: Path, count: int) -> None:
    """Put so many names into `retry/`, due in an hour and later. Nobody opens them before."""
    now = time.time()
    Spool.open(directory, create=True).close()
    first = directory
    for number in range(count):
        bucket = directory / "retry" / bucket_for(now + 3600 + 60 * (number // PER_BUCKET))
        if number % PER_BUCKET == 0:
            bucket.mkdir(mode=0o700)
        name = bucket / new_id(now)
        if number % LINKS == 0:
            name.touch(mode=0o600)
            first = name
        else:
            name.hardlink_to(first)


def idle_run(relay: Relay, trace: Path) -> int:
    """Run once over what is not due; return how many calls looked at files and directories."""
    under = (tracer(), "-f", "-qq", "-o", str(trace), "-e", "trace=openat,getdents64,/stat,flock,renameat2")
    done = relay.mailer_send("--once", under=under)
    assert (done.returncode, done.stderr) == (0, "")
    return len(trace.read_text().splitlines())


def test_an_idle_run_costs_the_same_however_deep_the_queue_is(relay: Relay, tmp_path: Path) -> None:
    """Both have the same buckets: what a run reads of `retry/` is their names."""
    relay.configure(forward_to(9))
    defer(relay.spool, 1)
    idle_run(relay, tmp_path / "first")  # Leaves what later runs find: the mark of the last run, say.
    few = idle_run(relay, tmp_path / "few")
    (bucket,) = (relay.spool / "retry").iterdir()
    for name in list(bucket.iterdir()):
        name.unlink()
    bucket.rmdir()
    defer(relay.spool, DEEP)
    deep = idle_run(relay, tmp_path / "deep")
    assert deep - few <= 2 * (DEEP // PER_BUCKET), "the buckets' names"


def test_new_mail_behind_a_deep_queue_is_delivered_and_memory_stays_bounded(relay: Relay) -> None:
    with Server() as server:
        relay.configure(forward_to(server))
        defer(relay.spool, DEEP)
        with relay.watch() as runner:
            fresh = queue(relay.spool)
            until(lambda: found_in(relay, fresh) is None, "the new message to be delivered", patience=60)
            assert peak_megabytes(runner.pid) < MEMORY
        assert len(server.delivered()) == 1


def found_in(relay: Relay, message_id: str) -> Path | None:
    """Where it is among what is being delivered; a walk over all places would read the deep queue."""
    places = (relay.spool / place / message_id for place in ("new", "cur", "failed", "hold"))
    return next((path for path in places if path.exists()), None)


def test_new_mail_overtakes_a_backlog(relay: Relay) -> None:
    """The server takes nothing until the new message is there; then it is among the first."""
    backlog, at_once = 400, 32
    there: list[str] = []
    with Server({"dot": lambda *_: until(lambda: there, "the new message") and "250 2.0.0 queued"}) as server:
        relay.configure(forward_to(server, sending={"concurrency": at_once}))
        for number in range(backlog):
            queue(relay.spool, [f"user{number}@example.net"])
        with relay.watch() as _:
            until(lambda: server.messages, "the runner to be at work")
            there.append(queue(relay.spool, ["fresh@example.net"]))
            until(lambda: found_in(relay, there[0]) is None, "the new message to be delivered")
            order = [to for to, _ in server.delivered()]
        assert order.index("fresh@example.net") < 2 * at_once
