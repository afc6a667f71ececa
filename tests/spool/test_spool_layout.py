"""The directory: who may look into it, what it is made of, and that it stays the one which was opened."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spools.runner import attempt, claims_of, settle
from spools.strategies import NOW, accept, envelope, receive
from spools.walk import walk
from testbed.ci import only_root

from mailer.spool.directory import Spool
from mailer.spool.due import due_buckets
from mailer.spool.layout import DIRECTORIES, Place, Spot, bucket_for, bucket_time, day_for
from mailer.spool.preparation import SpoolError
from mailer.spool.view.examine import directories
from mailer.spool.words import until

YEAR = 365 * 86400.0


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@given(st.floats(1e6, 4e9))
def test_a_bucket_is_the_minute_rounded_up_so_that_nothing_is_early(due: float) -> None:
    assert due <= bucket_time(bucket_for(due)) < due + 60


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_buckets_sort_by_time(one: float, other: float) -> None:
    assert (bucket_for(one) <= bucket_for(other)) == (
        bucket_time(bucket_for(one)) <= bucket_time(bucket_for(other))
    )


@pytest.mark.parametrize(
    "name", ["", "20261122", "20261122T2145", "tomorrow", "20261322T2145Z", "01JD0M3Q5V8Z7X2C4B6N8M0K1J"]
)
def test_other_directories_in_retry_are_no_buckets(spool_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"not a minute|must be in"):
        bucket_time(name)
    with Spool.open(spool_path, create=True) as spool:
        (spool_path / "retry" / name).mkdir(exist_ok=True)
        assert due_buckets(spool, NOW + YEAR, 3600) == []


def test_a_day_is_that_of_utc() -> None:
    assert day_for(NOW) == "20261122"
    assert day_for(NOW + 3 * 3600) == "20261123"


def test_nothing_is_due_early_and_a_bucket_too_far_ahead_is_due_now(spool_path: Path) -> None:
    """A clock that was ten years ahead when it named the bucket must not keep the mail for ten years."""
    with Spool.open(spool_path, create=True) as spool:
        for due in (NOW - 10, NOW + 61, NOW + 3600, NOW + 10 * YEAR):
            (spool_path / "retry" / bucket_for(due)).mkdir()
        every = sorted(path.name for path in (spool_path / "retry").iterdir())
        assert due_buckets(spool, NOW, 3600) == [bucket_for(NOW - 10), bucket_for(NOW + 10 * YEAR)]
        assert due_buckets(spool, NOW + 10 * YEAR + 60, 3600) == every
        assert due_buckets(spool, NOW - YEAR, 3600) == every


@pytest.mark.security_case(87)
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_directories_are_0700_and_files_0600_whatever_the_umask(spool_path: Path, mask: int) -> None:
    """SECURITY 87; also the buckets and the files that come later."""
    with umask(mask):
        accept(spool_path, b"x", "deferred@example.net")
        accept(spool_path, b"x", "sent@example.net")
        with Spool.open(spool_path) as spool:
            claim = claims_of(spool, NOW).claim(
                next(n for n, f in walk(spool_path).items() if "deferred" in f.recipients[0])
            )
            assert claim
            attempt(claim, NOW)
            settle(spool, claim, NOW)
    assert list((spool_path / "retry").iterdir())
    for path in [spool_path, *spool_path.rglob("*")]:
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_modes_that_somebody_loosened_are_tightened(spool_path: Path) -> None:
    accept(spool_path)
    spool_path.chmod(0o755)
    (spool_path / "new").chmod(0o777)
    Spool.open(spool_path).close()
    assert stat.S_IMODE(spool_path.stat().st_mode) == 0o755  # who reads changes nothing
    assert stat.S_IMODE((spool_path / "new").stat().st_mode) == 0o777
    Spool.open(spool_path, create=True).close()
    assert stat.S_IMODE(spool_path.stat().st_mode) == 0o700
    assert stat.S_IMODE((spool_path / "new").stat().st_mode) == 0o700


@pytest.mark.security_case(89)
def test_a_swapped_parent_directory_changes_nothing_for_an_open_spool(tmp_path: Path) -> None:
    """SECURITY 89: between the check and the use somebody puts a link to another place there."""
    root, moved, trap = tmp_path / "spool", tmp_path / "moved", tmp_path / "trap"
    accept(root)
    Spool.open(trap, create=True).close()
    with Spool.open(root) as spool:
        root.rename(moved)
        root.symlink_to(trap)
        name = receive(spool, b"second", envelope("sent@example.net"))
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        attempt(claim, NOW)
        settle(spool, claim, NOW)
    assert walk(trap, tuple(Place)) == {}
    assert len(walk(moved)) == 1


def test_a_place_that_is_a_link_is_refused(tmp_path: Path, spool_path: Path) -> None:
    """SECURITY 86: nothing inside the spool is followed out of it."""
    Spool.open(spool_path, create=True).close()
    (tmp_path / "elsewhere").mkdir()
    (spool_path / "new").rmdir()
    (spool_path / "new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError, match=r"new is not a directory: move it away"):
        Spool.open(spool_path)


@only_root("only root can give a directory away")
def test_a_place_of_another_user_is_to_be_given_back_with_its_mail(spool_path: Path) -> None:
    """After `chown` without -R, or a restore as another user: to move `new/` away would hide the queue."""
    Spool.open(spool_path, create=True).close()
    os.chown(spool_path / "new", 65534, -1)
    with pytest.raises(SpoolError, match=rf"new belongs to user 65534, .*chown -R 0 {spool_path}"):
        Spool.open(spool_path)
    [finding] = directories(spool_path)
    assert (finding.about, finding.todo) == (
        str(spool_path / "new"),
        f"type, as root: chown -R 0 {spool_path}",
    )


@pytest.mark.security_case(89)
def test_a_place_swapped_for_a_link_later_is_not_followed(tmp_path: Path, spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        (tmp_path / "elsewhere").mkdir()
        (spool_path / "new").rmdir()
        (spool_path / "new").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match=r"Too many levels of symbolic links|Not a directory"):
            spool.sync_directory("new")


def test_the_spool_itself_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "disk")
    name = accept(tmp_path / "spool")
    assert (tmp_path / "disk/new" / name).is_file()


def test_a_spool_that_is_not_there_is_made_only_when_asked(spool_path: Path) -> None:
    with pytest.raises(SpoolError, match="cannot open the spool: No such file"):
        Spool.open(spool_path)
    Spool.open(spool_path, create=True).close()
    names = sorted([*Place, "local", "log", "state", ".mailer-spool"])
    assert sorted(path.name for path in spool_path.iterdir()) == names


@only_root("only root can give a directory away")
def test_a_spool_of_another_user_is_refused_with_what_to_do(spool_path: Path) -> None:
    spool_path.mkdir()
    os.chown(spool_path, 4711, 4711)
    with pytest.raises(SpoolError, match=r"belongs to user 4711.*chown"):
        Spool.open(spool_path)


def test_a_spot_names_its_path() -> None:
    assert Spot(Place.RETRY, "ID", "20261122T2145Z").path == "retry/20261122T2145Z/ID"
    assert Spot(Place.NEW, "ID").path == "new/ID"


@pytest.mark.parametrize("name", ["log", "state"])
def test_what_no_mail_depends_on_may_be_deleted_while_programs_run(spool_path: Path, name: str) -> None:
    """Without it `mailer spool ls` refuses to work and `/health` is failing; the next write makes it."""
    with Spool.open(spool_path, create=True) as program, Spool.open(spool_path) as reader:
        (spool_path / name).rmdir()
        with pytest.raises(FileNotFoundError), reader.directory(name):
            pass
        with program.directory(name) as fd:
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o700
        with reader.directory(name):
            pass
        (spool_path / "hold").rmdir()
        with pytest.raises(FileNotFoundError), program.directory("hold"):
            pass


def test_a_new_spool_is_durable_in_its_parent(spool_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All mail is inside it: a power cut must not take the directory that was made for it.

    Nor may it take the mark and keep what stands beside it, which would be no spool, and not empty.
    """
    synced: list[tuple[Path, int]] = []
    real_fsync = os.fsync

    def watched(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        synced.append((path, len(list(path.iterdir()))))
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    Spool.open(spool_path, create=True).close()
    assert synced == [(spool_path.parent, 1), (spool_path, 1), (spool_path, 1 + len(DIRECTORIES))]
    Spool.open(spool_path, create=True).close()
    assert len(synced) == 3
    # One that a program has begun, and not made durable yet.
    for name in DIRECTORIES:
        (spool_path / name).rmdir()
    Spool.open(spool_path, create=True).close()
    assert synced[3:] == [(spool_path, 1), (spool_path, 1 + len(DIRECTORIES))]


@pytest.mark.parametrize(
    ("due", "now", "said"),
    [(61.0, 0.0, "in 2m"), (120.0, 0.0, "in 2m"), (61.0, 90.0, "in 30s"), (61.0, 120.0, "at the next run")],
)
def test_what_is_due_is_said_to_be_tried_when_its_bucket_is(due: float, now: float, said: str) -> None:
    assert until(due, now) == said
    assert (bucket_time(bucket_for(due)) <= now) == (said == "at the next run")
