"""`logRetention`: old days of the ledger go, and nothing else does."""

from functools import partial
from pathlib import Path

import pytest
from outbound.sending import queue
from spools.log_directory import opened
from testbed.relay import Relay

from mailer.mail import clock
from mailer.maillog.retention import remove_old_days
from mailer.maillog.tail import Tail

NOON = clock.seconds("2026-11-22T12:00:00Z")
DAY = 86_400.0


@pytest.mark.parametrize(
    ("days", "first_kept"),
    [(30, "20261023"), (3, "20261119"), (2, "20261120"), (0.1, "20261120"), (36_500, "20260101")],
)
def test_a_day_goes_when_it_has_been_over_for_as_long_as_is_asked_for_and_two_days(
    tmp_path: Path, days: float, first_kept: str
) -> None:
    names = [clock.rfc3339(NOON - back * DAY)[:10].replace("-", "") for back in range(40)]
    names += ["20260101", "20270101"]
    for name in names:
        (tmp_path / f"{name}.jsonl").touch()
    removed = remove_old_days(partial(opened, tmp_path), NOON, days * DAY)
    assert removed == sorted(name for name in names if name < first_kept)
    assert {path.stem for path in tmp_path.iterdir()} == {name for name in names if name >= first_kept}


def test_only_days_are_removed_and_one_that_cannot_be_stops_none(tmp_path: Path) -> None:
    (tmp_path / "20200101.jsonl").mkdir()
    for name in ("20200102.jsonl", "20209999.jsonl", "2020010.jsonl", "20200101.jsonl.gz", "notes"):
        (tmp_path / name).touch()
    assert remove_old_days(partial(opened, tmp_path), NOON, 0.0) == ["20200102"]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_reader_is_not_hindered_by_a_day_that_goes(tmp_path: Path) -> None:
    for name in ("20200101", "20200102"):
        (tmp_path / f"{name}.jsonl").write_bytes(b'{"at":"x","event":"sent"}\n')
    blocks = Tail(partial(opened, tmp_path)).blocks()
    next(blocks)
    remove_old_days(partial(opened, tmp_path), NOON, 0.0)
    assert list(blocks) == []


def test_a_run_removes_old_days_and_a_sweep_does(relay: Relay) -> None:
    relay.configure({"logRetention": "5d"})
    log = relay.spool / "log"
    # Its clock goes on: without an earlier run, a day so far apart is doubted (`test_send_wrong_clock`).
    assert relay.mailer_send("--once").returncode == 0
    for command in (relay.mailer_send, partial(relay.mailer, "spool", "sweep")):
        queue(relay.spool)
        for name in ("20200101.jsonl", "20991231.jsonl"):
            (log / name).touch()
        assert command().returncode == 0
        assert not (log / "20200101.jsonl").exists()
        assert (log / "20991231.jsonl").exists()
    assert len(relay.delivered()) == 1


def test_a_dry_run_removes_nothing(relay: Relay) -> None:
    queue(relay.spool)
    (relay.spool / "log/20200101.jsonl").touch()
    relay.mailer_send("--dry-run")
    relay.mailer("spool", "sweep", "--dry-run")
    assert (relay.spool / "log/20200101.jsonl").exists()
