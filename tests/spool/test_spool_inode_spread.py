"""The nursery: files of a busy spool are made elsewhere and are at once where they should be."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.spool import inode_spread
from mailer.spool.directory import Spool
from mailer.spool.layout import Place, Spot

FLAGS = os.O_RDWR | os.O_CLOEXEC


@pytest.fixture
def busy(spool_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spool]:
    """A spool on the filesystem that it pays on, past its first files; wards of three."""
    monkeypatch.setattr(inode_spread, "lacks_journal", lambda _device: True)
    monkeypatch.setattr(inode_spread, "_FEW", 0)
    monkeypatch.setattr(inode_spread, "_FILES", 3)
    monkeypatch.setattr(inode_spread, "_SLOW", float("inf"))
    with Spool.open(spool_path, create=True) as spool:
        yield spool


def make(spool: Spool, name: str) -> os.stat_result:
    fd = spool.create(Spot(Place.TMP, name), FLAGS)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def wards(spool: Spool) -> list[Path]:
    return list((spool.path / "state" / "nursery").iterdir())


def test_files_are_where_they_should_be_and_the_wards_change(busy: Spool) -> None:
    seen = set()
    for number in range(7):
        made = make(busy, f"m{number}")
        found = (busy.path / "tmp" / f"m{number}").stat()
        assert (found.st_ino, found.st_mode & 0o777) == (made.st_ino, 0o600)
        (ward,) = wards(busy)
        assert list(ward.iterdir()) == []
        seen.add(ward)
    assert len(seen) == 3


def test_a_closed_spool_leaves_no_ward(busy: Spool, spool_path: Path) -> None:
    with Spool.open(spool_path) as another:
        make(another, "m")
        assert len(wards(busy)) == 1
    assert wards(busy) == []


def test_a_name_that_is_taken_stays_as_it_is(busy: Spool) -> None:
    (busy.path / "tmp" / "m").write_text("somebody's")
    with pytest.raises(FileExistsError):
        make(busy, "m")
    assert (busy.path / "tmp" / "m").read_text() == "somebody's"
    assert [list(ward.iterdir()) for ward in wards(busy)] in ([], [[]])


def test_what_a_dead_program_left_is_swept_away(busy: Spool) -> None:
    litter = busy.path / "state" / "nursery" / "dead"
    litter.mkdir(parents=True)
    (litter / "m").touch()
    message = busy.path / "state" / "nursery" / "cut" / "m"
    message.parent.mkdir()
    message.write_text("after a power cut, a message may have its old name too")
    make(busy, "m")
    assert not litter.exists()
    assert message.exists()


def test_a_ward_swept_away_under_a_living_program_stops_nothing(busy: Spool, spool_path: Path) -> None:
    make(busy, "m0")
    (before,) = wards(busy)
    with Spool.open(spool_path) as another:
        make(another, "other")
        assert not before.exists()
        names = ["m1", "m2", "m3", "m4"]
        for name in names:
            make(busy, name)
        assert {"m0", "other", *names} == {path.name for path in (spool_path / "tmp").iterdir()}
        assert len(wards(busy)) == 2, "a new ward of its own"


def test_a_program_that_makes_few_files_has_no_ward(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inode_spread, "lacks_journal", lambda _device: True)
    with Spool.open(spool_path, create=True) as spool:
        for number in range(5):
            make(spool, f"m{number}")
    assert not (spool_path / "state" / "nursery").exists()


def test_a_ward_where_files_take_long_is_left_early(busy: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inode_spread, "_FILES", 64)
    monkeypatch.setattr(inode_spread, "_SLOW", 0.0)
    seen = set()
    for number in range(20):
        make(busy, f"m{number}")
        seen.update(wards(busy))
    assert len(seen) == 4, "six files each: 63 are left after the first, and then 31, 15, 7, 3, 1"
