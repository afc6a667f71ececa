"""A long listing is made by several processes; together they say what one would."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from bench.deep import fill_new
from testbed.capability import tracer
from testbed.proc import children, opened
from testbed.relay import Relay
from testbed.waiting import until

from mailer.cli.spool.parallel import _MIN_MESSAGES, listed
from mailer.spool.view.inspect import EVERYTHING, Share

TWO = 2
NAMES = [f"{number:05}" for number in range(60_000)]


def lines_of(mine: Share) -> Iterator[str]:
    """Some megabytes, more than a pipe holds; each line of another length."""
    return (f"{name} naïve \udcff{'x' * (int(name) % 97)}\n" for name in mine.among(NAMES))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Relay:
    relay = Relay(tmp_path_factory.mktemp("deep"))
    fill_new(relay.spool, _MIN_MESSAGES + 10)
    return relay


def test_a_long_queue_is_listed_once_and_in_the_order_of_arrival(deep: Relay, tmp_path: Path) -> None:
    names = sorted(path.name for path in (deep.spool / "new").iterdir())
    trace = tmp_path / "trace"
    under = (tracer(), "-f", "-o", str(trace), "-e", "trace=clone,clone3")
    done = deep.mailer("spool", "ls", under=under)
    heading, *lines = done.stdout.splitlines()
    assert heading.startswith("ID ")
    assert [line.split()[0] for line in lines] == names
    forks = trace.read_text().count("clone(") + trace.read_text().count("clone3(")
    assert forks == min(len(os.sched_getaffinity(0)), 4) or len(os.sched_getaffinity(0)) == 1
    records = [json.loads(line)["id"] for line in deep.mailer("spool", "ls", "--json").stdout.splitlines()]
    assert records == names


def test_a_filter_and_a_limit_hold_for_a_long_queue_too(deep: Relay) -> None:
    assert (
        len(deep.mailer("spool", "ls", "--json", "--sender", "app@").stdout.splitlines())
        == _MIN_MESSAGES + 10
    )
    assert deep.mailer("spool", "ls", "--json", "--sender", "nobody@").stdout == ""
    assert len(deep.mailer("spool", "ls", "--json", "--limit", "7").stdout.splitlines()) == 7


def test_a_reader_that_has_seen_enough_leaves_no_process_and_no_words(deep: Relay) -> None:
    argv = [sys.executable, "-m", "mailer", "spool", "ls", "--config", str(deep.config)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ls:
        assert ls.stdout
        assert ls.stderr
        assert ls.stdout.readline().startswith(b"ID ")
        ls.stdout.close()
        # It ends when all who could write to it have ended.
        assert ls.stderr.read() == b""


def test_an_ignored_end_of_children_loses_nothing(deep: Relay) -> None:
    ignoring = ("sh", "-c", 'trap "" CHLD; exec "$@"', "sh")
    done = deep.mailer("spool", "ls", "--json", under=ignoring)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, _MIN_MESSAGES + 10)


def test_the_shares_are_whole_lines_however_they_come() -> None:
    lines = "".join(listed(lines_of, TWO)).splitlines(keepends=True)
    assert sorted(lines) == sorted(listed(lines_of, 1))


def test_one_process_does_it_where_there_is_no_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "no room")

    monkeypatch.setattr(os, "fork", refuse)
    before = len(opened(os.getpid()))
    assert list(listed(lines_of, TWO)) == list(lines_of(EVERYTHING))
    assert len(opened(os.getpid())) == before


def failing(how: signal.Signals | Exception) -> Iterator[str]:
    yield "the last line\n"
    if isinstance(how, Exception):
        raise how
    os.kill(os.getpid(), how)
    raise AssertionError("it outlived the signal")


@pytest.mark.parametrize(
    ("how", "error", "number"),
    [
        (OSError(errno.EIO, "a bad sector"), OSError, errno.EIO),
        (ValueError("a defect"), RuntimeError, None),
        (signal.SIGKILL, ChildProcessError, None),
        (signal.SIGINT, RuntimeError, None),
    ],
)
def test_a_part_of_a_listing_is_never_taken_for_the_whole(
    how: signal.Signals | Exception, error: type[Exception], number: int | None
) -> None:
    def lines(mine: Share) -> Iterator[str]:
        return lines_of(mine) if NAMES[0] in mine.among(NAMES) else failing(how)

    before = children(os.getpid())
    with pytest.raises(error) as raised:
        list(listed(lines, TWO))
    assert getattr(raised.value, "errno", None) == number
    assert children(os.getpid()) == before


def test_who_reads_no_further_ends_processes_that_would_never_end() -> None:
    def lines(mine: Share) -> Iterator[str]:
        return (f"{number}\n" for number in count() if number % mine.of == mine.number)

    before = children(os.getpid())
    endless = listed(lines, TWO)
    assert next(endless)
    assert len(children(os.getpid())) == len(before) + TWO
    endless.close()
    assert children(os.getpid()) == before


def test_the_processes_end_with_the_one_that_started_them() -> None:
    reading, writing = os.pipe()
    if (parent := os.fork()) == 0:
        for _ in listed(lambda _: iter(lambda: os.write(writing, b"%7d" % os.getpid()) and "x\n", ""), TWO):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    os.close(writing)
    pids = {int(os.read(reading, 7)) for _ in range(20)}
    with contextlib.closing(os.fdopen(reading, "rb")) as rest:
        until(lambda: not rest.read(1 << 16), "both to end, and with them the last writer")
    assert parent not in pids
