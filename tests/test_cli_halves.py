"""A long listing is made by two processes; together they say what one would."""

import errno
import json
import os
import signal
from collections.abc import Iterator

import pytest
from bench.deep import fill_new
from testbed.proc import children
from testbed.relay import Relay

from mailer.cli.spool.halves import _LONG, listed
from mailer.spool.inspect import Mine

NAMES = [f"{number:04}" for number in range(2000)]


def test_every_message_of_a_long_queue_is_listed_once(relay: Relay) -> None:
    fill_new(relay.spool, _LONG + 10)
    names = {path.name for path in (relay.spool / "new").iterdir()}
    heading, *lines = relay.mailer("spool", "ls").stdout.splitlines()
    assert heading.startswith("ID ")
    assert sorted(line.split()[0] for line in lines) == sorted(names)
    records = [json.loads(line)["id"] for line in relay.mailer("spool", "ls", "--json").stdout.splitlines()]
    assert sorted(records) == sorted(names)


def mine_only(mine: Mine) -> Iterator[str]:
    return (f"{name} naïve \udcff\n" for name in NAMES if mine(name))


def test_the_halves_are_whole_lines_however_they_come() -> None:
    lines = "".join(listed(mine_only, in_two=True)).splitlines(keepends=True)
    assert sorted(lines) == sorted(listed(mine_only, in_two=False))


def others(how: signal.Signals | OSError) -> Iterator[str]:
    yield "the last line\n"
    if isinstance(how, OSError):
        raise how
    os.kill(os.getpid(), how)


@pytest.mark.parametrize(
    ("how", "error", "number"),
    [
        (OSError(errno.EIO, "a bad sector"), OSError, errno.EIO),
        (signal.SIGKILL, ChildProcessError, None),
        (signal.SIGINT, ChildProcessError, None),
    ],
)
def test_half_a_listing_is_never_taken_for_the_whole(
    how: signal.Signals | OSError, error: type[OSError], number: int | None
) -> None:
    def lines(mine: Mine) -> Iterator[str]:
        return mine_only(mine) if mine(NAMES[0]) else others(how)

    seen = []
    with pytest.raises(error) as raised:
        seen.extend(listed(lines, in_two=True))
    assert raised.value.errno == number
    assert "the last line\n" in "".join(seen) or how is signal.SIGKILL


def test_who_reads_no_further_leaves_no_process_behind() -> None:
    before = children(os.getpid())
    lines = listed(mine_only, in_two=True)
    assert next(lines)
    lines.close()
    assert children(os.getpid()) == before
