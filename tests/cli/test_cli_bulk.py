"""Many messages at one command: durable before it says so, with a few syncs and not some for each message."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from spools.moves import MOVE
from spools.states import Queue
from spools.strace import calls_in
from spools.walk import in_two_places, walk
from testbed.capability import tracer
from testbed.relay import Relay

MANY = 120
BUCKETS = 3
WATCHED = f"fsync,fdatasync,syncfs,write,unlinkat,{MOVE}"


@pytest.fixture
def queue(relay: Relay) -> Queue:
    return Queue(relay.spool)


def deferred(queue: Queue) -> None:
    for number in range(MANY):
        queue.defer(queue.new(), "451 no", seconds=600 + 60 * (number % BUCKETS))


def bulk(relay: Relay, trace: Path, verb: str, *inject: str) -> Counter[str]:
    """Do it to all of them, and count the syncs by their call and the last part of their path."""
    under = (tracer(), "-f", "-y", "-s", "256", "-o", str(trace), "-e", f"trace={WATCHED}", *inject)
    done = relay.mailer("spool", verb, "--all", "--json", under=under)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == ["done"] * MANY
    assert in_two_places(relay.spool) == []
    return Counter(call.name for call in calls_in(trace) if "sync" in call.name)


@pytest.mark.parametrize(("verb", "place"), [("retry", "new"), ("hold", "hold"), ("rm", "")])
def test_a_bulk_command_syncs_for_all_messages_together(
    relay: Relay, queue: Queue, tmp_path: Path, verb: str, place: str
) -> None:
    """*Measured, `retry --all` of 1,000 messages in ten buckets: 29 fsyncs and 5 syncfs; it was 3,000.*"""
    deferred(queue)
    syncs = bulk(relay, tmp_path / "trace", verb)
    assert syncs["fdatasync"] == 0, syncs
    assert 0 < syncs["fsync"] <= 4 * (1 + BUCKETS), syncs
    assert {found.place for found in walk(relay.spool).values()} == ({place} if place else set())


def test_a_bulk_command_has_written_each_journal_and_each_name_before_it_says_so(
    relay: Relay, queue: Queue, tmp_path: Path
) -> None:
    deferred(queue)
    bulk(relay, tmp_path / "trace", "retry")
    calls = calls_in(tmp_path / "trace")

    def numbers(name: str, pattern: str) -> list[int]:
        return [n for n, call in enumerate(calls) if call.name == name and re.search(pattern, call.arguments)]

    written, moved = numbers("write", "requeued.*by.*"), numbers(MOVE, '"new/')
    (synced,) = numbers("syncfs", "")
    said = numbers("write", "^1<.*result.*done")
    new, old = numbers("fsync", "/new>"), numbers("fsync", r"/retry/\w+>")
    assert max(n for n in written if n < synced) < synced < min(moved)
    assert max(moved) < max(new)
    assert len(moved) == MANY
    assert max(new) < max(old) < min(said)


def test_where_the_filesystem_cannot_be_synced_each_journal_is(
    relay: Relay, queue: Queue, tmp_path: Path
) -> None:
    """An error of syncfs(2) may be another file's; each is asked then."""
    deferred(queue)
    syncs = bulk(relay, tmp_path / "trace", "retry", "-e", "inject=syncfs:error=EIO")
    assert syncs["fdatasync"] == MANY, syncs
