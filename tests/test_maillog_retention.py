"""`logRetention`: old days of the ledger go, and nothing else does."""

from functools import partial
from pathlib import Path

import pytest
from log_directory import opened
from sending import queue
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


def test_a_clock_that_is_years_ahead_removes_nothing_on_its_first_day(tmp_path: Path) -> None:
    """Row 10 of the faults, for the ledger: also when something has been written in that year already."""
    for name in ("20261101", "20261121", "20261122"):
        (tmp_path / f"{name}.jsonl").touch()
    later = NOON + 3653 * DAY
    assert remove_old_days(partial(opened, tmp_path), later, 10 * DAY) == ["20261101"]
    (tmp_path / "20361122.jsonl").touch()
    assert remove_old_days(partial(opened, tmp_path), later, 10 * DAY) == []
    assert remove_old_days(partial(opened, tmp_path), NOON, 10 * DAY) == []
    assert remove_old_days(partial(opened, tmp_path), later + DAY, 10 * DAY) == ["20261121", "20261122"]


def test_only_days_are_removed_and_one_that_cannot_be_stops_none(tmp_path: Path) -> None:
    (tmp_path / "20200101.jsonl").mkdir()
    others = ("20209999.jsonl", "2020010.jsonl", "20200101.jsonl.gz", "notes", "20261121.jsonl")
    for name in ("20200102.jsonl", *others):
        (tmp_path / name).touch()
    assert remove_old_days(partial(opened, tmp_path), NOON, 0.0) == ["20200102"]
    assert {path.name for path in tmp_path.iterdir()} == {"20200101.jsonl", *others}


def test_a_reader_is_not_hindered_by_a_day_that_goes(tmp_path: Path) -> None:
    (tmp_path / "20261121.jsonl").touch()
    for name in ("20200101", "20200102"):
        (tmp_path / f"{name}.jsonl").write_bytes(b'{"at":"x","event":"sent"}\n')
    blocks = Tail(partial(opened, tmp_path)).blocks()
    next(blocks)
    remove_old_days(partial(opened, tmp_path), NOON, 0.0)
    assert list(blocks) == []


def test_a_run_removes_old_days_and_a_sweep_does(relay: Relay) -> None:
    relay.configure({"logRetention": "5d"})
    log = relay.spool / "log"
    for command in (relay.mailer_send, partial(relay.mailer, "spool", "sweep")):
        queue(relay.spool)
        for name in ("20200101.jsonl", "20200301.jsonl", "20991231.jsonl"):
            (log / name).touch()
        assert command().returncode == 0
        assert not (log / "20200101.jsonl").exists()
        assert (log / "20200301.jsonl").exists()  # the last that anything was written on before today
        assert (log / "20991231.jsonl").exists()
    assert len(relay.delivered()) == 1


def test_a_dry_run_removes_nothing(relay: Relay) -> None:
    queue(relay.spool)
    (relay.spool / "log/20200101.jsonl").touch()
    relay.mailer_send("--dry-run")
    relay.mailer("spool", "sweep", "--dry-run")
    assert (relay.spool / "log/20200101.jsonl").exists()
