"""Counters from the ledger: each event once, and never less than before, whatever happens to files."""

import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spools.log_directory import opened

from mailer.mail import clock
from mailer.maillog.ledger import Ledger, Line, encode
from mailer.maillog.search import Query, find
from mailer.maillog.series import DAY, HOUR, SPANS, WEEK
from mailer.maillog.totals import DELAY_BOUNDS, Totals, TotalsFold

NOW = clock.seconds("2026-11-22T21:45:30Z")
DAY_FILE = "20261122.jsonl"


def at(seconds: float) -> str:
    return clock.rfc3339(NOW + seconds)


def accepted(number: int, when: float = 0.0, to: int = 1, size: int = 100) -> Line:
    recipients = tuple(f"r{n}@example.net" for n in range(to))
    return Line(at=at(when), event="accepted", id=name(number), sender="a@b.c", to=recipients, size=size)


def outcome(event: str, number: int, to: tuple[int, ...] = (0,), attempt: int = 1, **more: object) -> Line:
    recipients = tuple(f"r{n}@example.net" for n in to)
    when = at(float(more.pop("when", 1.0)))  # type: ignore[arg-type]
    return Line(at=when, event=event, id=name(number), to=recipients, attempt=attempt, **more)  # type: ignore[arg-type]


def name(number: int) -> str:
    return f"01M82KGEY3WBBXBFP3K7{number:06d}"


def fold_of(directory: Path, saved: bytes | None = None) -> TotalsFold:
    return TotalsFold(partial(opened, directory), lambda: NOW, saved)


def write(directory: Path, *lines: Line) -> None:
    ledger = Ledger(partial(opened, directory), on_trouble=lambda error: pytest.fail(str(error)))
    for line in lines:
        ledger.append(line)
    ledger.close()


def test_every_event_has_its_counter(tmp_path: Path) -> None:
    write(
        tmp_path,
        accepted(1, to=3, size=1000),
        msgspec.structs.replace(accepted(2, to=1, size=10), about=name(1)),
        outcome("attempt", 1, (0, 1, 2), reply="421 busy"),
        outcome("deferred", 1, (0, 1), delays=(0.0, 0.0, 0.25, 0.5)),
        outcome("uncertain", 1, (2,)),
        outcome("sent", 1, (0, 1), attempt=2, delay=30.0, delays=(0.0, 0.0, 0.5, 0.75)),
        outcome("bounced", 1, (2,), attempt=2, message="failed"),
        outcome("sent", 2, delay=0.05, message="delivered"),
        outcome("expired", 3, message="failed"),
        *(
            Line(at=at(0), event=event, id=name(1))
            for event in ("held", "released", "requeued", "recovered", "quarantined", "removed", "trouble?")
        ),
        *(
            Line(at=at(0), event=event)
            for event in ("rejected", "rejected", "limited", "login-failed", "provider")
        ),
    )
    fold = fold_of(tmp_path)
    totals = fold.refresh()
    assert totals == Totals(
        accepted=2, notifications=1, recipients=4, bytes=1010, delivered=1, failed=2, sent=3, deferred=2,
        uncertain=1, bounced=1, expired=1, held=1, released=1, requeued=1, recovered=1, quarantined=1,
        removed=1, rejected=2, limited=1, logins_failed=1, hop_troubles=1, provider_changes=1, attempts=2,
        attempt_seconds=2.0, delay=totals.delay,
    )  # fmt: skip
    assert totals.delay.count == 3
    assert totals.delay.total == pytest.approx(60.05)
    within = dict(totals.delay.cumulative())
    assert (within[0.1], within[15.0], within[60.0], within[float("inf")]) == (1, 1, 3, 3)
    assert list(within) == [*DELAY_BOUNDS, float("inf")]
    assert totals.mean_attempt_ms == 1000.0


def test_a_line_that_recovery_repeats_counts_once_and_one_that_was_missing_counts(tmp_path: Path) -> None:
    """The runner died after the ledger's line of one recipient, and before those of two others."""
    again = {"again": True}
    write(tmp_path, accepted(1, to=3), outcome("sent", 1, (0,)))
    fold = fold_of(tmp_path)
    assert fold.refresh().sent == 1
    write(
        tmp_path,
        Line(at=at(2), event="recovered", id=name(1)),
        outcome("sent", 1, (0, 1), **again, when=3.0),
        outcome("bounced", 1, (2,), **again, when=4.0, message="failed"),
        # That runner died too.
        Line(at=at(5), event="recovered", id=name(1)),
        outcome("sent", 1, (0, 1), **again, when=6.0),
        outcome("bounced", 1, (2,), **again, when=7.0, message="failed"),
    )
    totals = fold.refresh()
    assert (totals.sent, totals.bounced, totals.failed, totals.recovered) == (2, 1, 1, 2)
    assert fold_of(tmp_path).refresh() == totals


lines = st.one_of(
    st.builds(
        accepted, st.integers(0, 5), st.floats(-2 * 86_400, 3_600), st.integers(1, 4), st.integers(0, 9)
    ),
    st.builds(
        outcome,
        st.sampled_from(["sent", "deferred", "bounced", "expired", "uncertain", "nonsense"]),
        st.integers(0, 5),
        st.lists(st.integers(0, 3), max_size=3).map(tuple),
        st.integers(1, 3),
    ),
    st.builds(lambda event: Line(at=at(0), event=event), st.sampled_from(["rejected", "limited", "held"])),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.lists(lines, max_size=5), max_size=6), st.data())
def test_however_often_it_is_read_stopped_and_started_the_sum_is_the_same(
    tmp_path: Path, batches: list[list[Line]], data: st.DataObject
) -> None:
    for file in tmp_path.iterdir():
        file.unlink()
    fold, before = fold_of(tmp_path), Totals()
    for batch in batches:
        write(tmp_path, *batch)
        if data.draw(st.booleans()):
            after = fold.refresh()
            assert all(
                getattr(after, f) >= getattr(before, f) for f in Totals.__struct_fields__ if f != "delay"
            )
            assert after.delay.count >= before.delay.count
            before = after
        if data.draw(st.booleans()):
            fold = fold_of(tmp_path, fold.saved())
    everything = fold_of(tmp_path)
    assert fold.refresh() == everything.refresh()
    for span in SPANS:
        assert fold.points(span) == everything.points(span)


def test_days_that_are_gone_stay_counted(tmp_path: Path) -> None:
    write(tmp_path, accepted(1, -86_400), accepted(2))
    fold = fold_of(tmp_path)
    assert fold.refresh().accepted == 2
    (tmp_path / "20261121.jsonl").unlink()
    write(tmp_path, accepted(3))
    assert fold.refresh().accepted == 3
    assert fold_of(tmp_path, fold.saved()).refresh().accepted == 3


def test_torn_lines_and_garbage_count_for_nothing_and_hide_nothing(tmp_path: Path) -> None:
    whole = encode(accepted(1))
    (tmp_path / DAY_FILE).write_bytes(
        whole + whole[:40] + whole + b"\xff\xfe garbage\n\n[1]\n" + b"[" * 5000 + b"\n" + whole + whole[:-1]
    )
    fold = fold_of(tmp_path)
    assert fold.refresh().accepted == 3
    assert fold.refresh().accepted == 3
    with (tmp_path / DAY_FILE).open("ab") as file:
        file.write(b"\n" + whole)
    assert fold.refresh().accepted == 5


def test_a_file_in_the_place_of_another_is_read_and_a_copy_is_not_read_twice(tmp_path: Path) -> None:
    log, moved = tmp_path / "log", tmp_path / "moved"
    log.mkdir()
    write(log, accepted(1), accepted(2))
    fold = fold_of(log)
    assert fold.refresh().accepted == 2
    log.rename(moved)
    shutil.copytree(moved, log)
    write(log, accepted(3))
    assert fold.refresh().accepted == 3
    shutil.rmtree(log)
    with pytest.raises(FileNotFoundError):
        fold.refresh()
    log.mkdir()
    assert fold.refresh().accepted == 3
    write(log, accepted(4))
    assert fold_of(log, fold.saved()).refresh().accepted == 4


def test_what_a_power_cut_took_is_not_counted_again(tmp_path: Path) -> None:
    write(tmp_path, accepted(1), accepted(2))
    fold = fold_of(tmp_path)
    fold.refresh()
    whole = (tmp_path / DAY_FILE).read_bytes()
    (tmp_path / DAY_FILE).write_bytes(whole[: len(whole) // 2 + 10])
    fold = fold_of(tmp_path, fold.saved())
    assert fold.refresh().accepted == 2
    write(tmp_path, accepted(3))
    write(tmp_path, accepted(4))
    assert fold.refresh().accepted in {
        3,
        4,
    }  # The first may stand behind a torn line whose beginning was read.


@pytest.mark.parametrize(
    "saved",
    [
        b"",
        b"{}",
        b"null",
        b'{"totals":7}',
        b"\xff",
        b'{"positions":{"20261122":{"head":"zz"}}}',
        b'{"series":[{"1":[1]},{},{}]}',
        b'{"totals":{"delay":{"counts":[1,2],"total":3}}}',
        b"\xff" + b"[" * 2000,
    ],
)
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, saved: bytes) -> None:
    write(tmp_path, accepted(1))
    fold = fold_of(tmp_path, saved)
    totals = fold.refresh()
    assert totals.accepted == 1
    assert len(totals.delay.cumulative()) == len(DELAY_BOUNDS) + 1
    assert fold.points(WEEK)[-1].accepted == 1


def test_a_line_longer_than_a_block_is_a_line(tmp_path: Path) -> None:
    write(tmp_path, accepted(1, to=40_000), accepted(2))
    totals = fold_of(tmp_path).refresh()
    assert (totals.accepted, totals.recipients) == (2, 40_001)


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, accepted(1))
    (tmp_path / "20261120.jsonl").mkdir()
    (tmp_path / "20261121.jsonl").symlink_to(tmp_path / DAY_FILE)
    (tmp_path / "20261121.jsonl~").touch()
    os.mkfifo(tmp_path / "20261119.jsonl")
    assert fold_of(tmp_path).refresh().accepted == 1
    assert len(list(find(partial(opened, tmp_path), Query()))) == 1


WRITER = """
import sys
from functools import partial
from pathlib import Path
from spools.log_directory import opened
from mailer.maillog.ledger import Ledger, Line
ledger = Ledger(partial(opened, Path(sys.argv[1])), on_trouble=sys.exit)
for number in range(3000):
    to = ("x" * (number % 7 * 50) + "@example.net",)
    ledger.append(Line(at="2026-11-22T21:45:01Z", event="accepted", id=f"{sys.argv[2]}/{number}", to=to))
"""


def test_a_reader_beside_several_writers_misses_nothing(tmp_path: Path) -> None:
    here = str(Path(__file__).parents[1])
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(n)], env={"PYTHONPATH": here})
        for n in range(3)
    ]
    fold, last = fold_of(tmp_path), 0
    while any(writer.poll() is None for writer in writers):
        now = fold.refresh().accepted
        assert now >= last
        last = now
        if random.random() < 0.1:
            fold = fold_of(tmp_path, fold.saved())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert fold.refresh().accepted == 9000


def test_the_series_ends_now_and_has_no_holes(tmp_path: Path) -> None:
    write(
        tmp_path,
        accepted(1, to=2),
        outcome("sent", 1, (0,), when=0.0),
        outcome("bounced", 1, (1,), when=-59 * 60.0),
        outcome("deferred", 1, (1,), when=-23 * 3600.0),
        outcome("expired", 1, (1,), when=-6.9 * 86_400),
        outcome("sent", 1, (1,), when=-8.0 * 86_400),
        outcome("sent", 1, (1,), when=+30.0 * 86_400),
    )
    fold = fold_of(tmp_path)
    fold.refresh()
    for span, sums in ((HOUR, (2, 1, 0, 1)), (DAY, (2, 1, 1, 1)), (WEEK, (2, 1, 1, 2))):
        points = fold.points(span)
        assert len(points) == span.buckets
        assert [point.at for point in points] == list(range(points[0].at, points[-1].at + 1, span.step))
        assert points[-1].at <= NOW < points[-1].at + span.step
        totals = [sum(getattr(p, f) for p in points) for f in ("accepted", "sent", "deferred", "bounced")]
        assert tuple(totals) == sums, span
    assert (fold.points(HOUR)[-1].accepted, fold.points(HOUR)[-1].sent) == (2, 1)
