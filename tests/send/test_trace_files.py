"""The directory of traces: which are kept, where, and what is planted in it."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from outbound.failed_sessions import NOW, REFUSED, fail, trace_files
from outbound.hostile import Server
from outbound.sending import forward_to, found, queue
from testbed.relay import Relay

from mailer.maillog import traces
from mailer.maillog.traces import Trace


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def directory(path: Path) -> partial[AbstractContextManager[int]]:
    return partial(opened, path)


def at_time(moment: float, reply: str = "550 no") -> Trace:
    return Trace(moment, "mx.example[192.0.2.1]:25", (("rcpt", reply),), "01M82KGEY3WBBXBFP3K78QFDBH")


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(traces.MOST + 5):
        traces.write(directory(tmp_path), at_time(NOW + number), ["S: 220"])
    kept = traces.traces(directory(tmp_path))
    assert [trace.at for trace in kept] == [NOW + number for number in range(5, traces.MOST + 5)]


def test_traces_of_a_clock_that_was_ahead_go_first(tmp_path: Path) -> None:
    for number in range(traces.MOST):
        traces.write(directory(tmp_path), at_time(NOW + 1e8 + number), ["S: 220"])
    traces.write(directory(tmp_path), at_time(NOW), ["S: 220"])
    kept = traces.traces(directory(tmp_path))
    assert len(kept) == traces.MOST
    assert kept[0].at == NOW


def test_the_middle_of_a_long_trace_is_left_out(tmp_path: Path) -> None:
    said = [f"    0.000  S: {number} {'ü' * 50}" for number in range(1000)]
    traces.write(directory(tmp_path), at_time(NOW), said)
    [trace] = traces.traces(directory(tmp_path))
    text = traces.text(directory(tmp_path), trace.name)
    assert traces.LARGEST - 400 < len(text.encode()) <= traces.LARGEST
    shown = text.partition("\n\n")[2].splitlines()
    cut = next(place for place, line in enumerate(shown) if line.startswith("("))
    assert shown == [
        *said[:cut],
        f"({1000 - len(shown) + 1} lines are left out here)",
        *said[cut + 1 - len(shown) :],
    ]


def test_traces_are_deleted_with_the_ledger_also_by_a_run_that_finds_no_mail(relay: Relay) -> None:
    relay.configure({"logRetention": "30d"})
    assert relay.mailer_send("--once").returncode == 0
    with Server(REFUSED) as server:
        fail(relay, server, logRetention="30d")
    [kept] = trace_files(relay)
    old = kept.parent / "20200229T000000.000Z-mx.example.txt"
    other = kept.parent / "notes.txt"
    for path in (old, other):
        path.write_text("# old\n")
    assert relay.mailer_send("--once").returncode == 0
    assert trace_files(relay) == sorted([kept, other])


def test_traces_lie_beside_the_ledger_so_that_cat_reads_all_of_log(relay: Relay) -> None:
    with Server(REFUSED) as server:
        fail(relay, server)
    assert len(trace_files(relay)) == 1
    assert [path.name for path in (relay.spool / "log").iterdir() if not path.is_file()] == []


@pytest.mark.parametrize("newer", [True, False])
def test_traces_of_an_earlier_version_are_moved_out_of_log(relay: Relay, *, newer: bool) -> None:
    """Also when that version has run again after this one, by scripts/install --previous."""
    with Server(REFUSED) as server:
        message = fail(relay, server)
    [path] = trace_files(relay)
    before, old = path.read_text(), relay.spool / "log" / "traces"
    old.mkdir()
    path.rename(old / path.name)
    if newer:
        (path.parent / "20261122T214503.000Z-other.txt").touch()
    else:
        path.parent.rmdir()
    assert relay.mailer_send("--once").returncode == 0
    assert path in trace_files(relay)
    assert not old.exists()
    assert relay.mailer("spool", "trace", message).stdout == before
    assert relay.mailer("spool", "fsck").returncode == 0


@pytest.mark.security_case(142)
def test_what_is_planted_in_place_of_an_earlier_versions_traces_stays(relay: Relay) -> None:
    elsewhere = relay.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    assert relay.mailer_send("--once").returncode == 0
    (relay.spool / "log" / "traces").symlink_to(elsewhere)
    assert relay.mailer_send("--once").returncode == 0
    assert [each.name for each in elsewhere.iterdir()] == ["mine"]
    assert not (relay.spool / "traces").exists()


@pytest.mark.security_case(142)
@pytest.mark.parametrize("planted", ["link", "file"])
def test_a_directory_that_is_none_costs_the_trace_and_nothing_else(relay: Relay, planted: str) -> None:
    elsewhere = relay.directory / "elsewhere"
    elsewhere.mkdir()
    with Server({"rcpt": "451 4.2.1 full"}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        if planted == "link":
            (relay.spool / "traces").symlink_to(elsewhere)
        else:
            (relay.spool / "traces").write_text("mine\n")
        done = relay.mailer_send("--once")
        assert (done.returncode, "trace" in done.stderr) == (0, False), done.stderr
    assert list(elsewhere.iterdir()) == []
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert "451 4.2.1 full" in relay.mailer("spool", "why", message).stdout
    done = relay.mailer("spool", "trace")
    assert done.returncode == (0 if not done.stderr else 66)


@pytest.mark.security_case(142)
def test_planted_names_are_neither_read_nor_followed(relay: Relay) -> None:
    secret = relay.directory / "secret"
    secret.write_text("# x\nHop: top secret\nFailed: a: b\n\nsecret\n")
    with Server(REFUSED) as server:
        message = fail(relay, server)
    [kept] = trace_files(relay)
    stem = "20261122T214503.000Z"
    (kept.parent / f"{stem}-link.txt").symlink_to(secret)
    os.mkfifo(kept.parent / f"{stem}-fifo.txt")
    (kept.parent / f"{stem}-directory.txt").mkdir()
    (kept.parent / f"{stem}-half.txt").write_text("# x\nHop: a:25\n")
    (kept.parent / f"{stem}-\x1b.txt").write_text(secret.read_text())
    listed = relay.mailer("spool", "trace")
    assert (listed.returncode, listed.stdout) == (0, f"{kept.name}  rcpt: 550 5.1.1 no such user\n")
    assert relay.mailer("spool", "trace", f"{stem}-link.txt").returncode == 66
    assert relay.mailer("spool", "trace", message).stdout == kept.read_text()
