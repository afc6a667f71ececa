"""Sweeping and looking: what is due comes back, litter goes, and neither costs more than what it finds."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spools.moves import MOVE
from spools.runner import DELAY, HORIZON, claims_of, run_once
from spools.strace import straced
from spools.strategies import NOW, accept, envelope
from spools.syncs import Fsyncs
from spools.walk import only, walk

from mailer.spool import incoming as incoming_module
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming
from mailer.spool.layout import Place, Spot, bucket_time
from mailer.spool.locked_message import LockedMessage
from mailer.spool.run.sweep import clean_tmp, requeue_due
from mailer.spool.scan import count, find, spots
from mailer.spool.transitions import Move

DAY = 86400.0
YEAR = 365 * DAY


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def sweep(spool: Spool, now: float) -> list[str]:
    return [spot.name for spot in requeue_due(spool, claims_of(spool, now), now, HORIZON)]


def test_a_deferred_message_comes_back_when_it_is_due_and_not_before(spool_path: Path) -> None:
    name = accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        [bucket] = names_in(spool_path / "retry")
        due = bucket_time(bucket)
        assert NOW + DELAY <= due < NOW + DELAY + 60
        assert sweep(spool, due - 1) == []
        assert sweep(spool, due) == [name]
        assert names_in(spool_path / "retry") == [], "the empty bucket went"


@pytest.mark.parametrize("renames_are_whole", [True, False])
def test_what_comes_back_is_durable_in_new_before_it_is_gone_from_its_bucket(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch, *, renames_are_whole: bool
) -> None:
    """And both before a runner may have it: what is sent must not come back after a power cut."""
    name = accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        spool.renames_are_whole = renames_are_whole
        run_once(spool, NOW)
        [bucket] = names_in(spool_path / "retry")
        fsyncs = Fsyncs(monkeypatch)
        assert sweep(spool, bucket_time(bucket)) == [name]
        assert fsyncs.paths == ["new", f"retry/{bucket}"]


@pytest.mark.fault_row(10)
@pytest.mark.parametrize("jump", [10 * YEAR, -YEAR])
def test_a_clock_that_jumps_loses_nothing_and_makes_no_hot_loop(spool_path: Path, jump: float) -> None:
    """Each message is tried once for the jump, and then waits its time by the new clock."""
    names = {accept(spool_path, b"x", "deferred@example.net") for _ in range(3)}
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        tries: list[str] = []
        for later in (0.0, 1.0, 30.0, DELAY / 2):
            sweep(spool, NOW + jump + later)
            run_once(spool, NOW + jump + later, lambda name, _: tries.append(name))
        assert sorted(tries) == sorted(names)
        assert {found.place for found in walk(spool_path).values()} == {"retry"}
        back: list[str] = []
        sweep(spool, NOW + 2 * DELAY)
        run_once(spool, NOW + 2 * DELAY, lambda name, _: back.append(name))
        assert sorted(back) == sorted(names), "and when the clock is put right again, at once"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.sampled_from([NOW, NOW + 10 * YEAR, NOW - YEAR, 0.0, NOW + 1]), min_size=2, max_size=6))
def test_messages_accepted_under_a_jumping_clock_are_told_apart(tmp_path: Path, clock: list[float]) -> None:
    root = tmp_path / "spool"
    names = [accept(root, b"x", now=now) for now in clock]
    queue = walk(root)
    assert len(set(names)) == len(clock)
    assert set(names) <= set(queue)
    assert all(found.intact for found in queue.values())


def test_a_busy_message_stays_in_its_bucket_and_the_bucket_stays_with_it(spool_path: Path) -> None:
    names = [accept(spool_path, b"x", "deferred@example.net") for _ in range(2)]
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        (spot,) = find(spool, names[0])
        with LockedMessage.lock(spool, spot):
            assert sweep(spool, NOW + 2 * DELAY) == [names[1]]
        assert [found.name for found in only(spool_path, "retry")] == [names[0]]
        assert sweep(spool, NOW + 2 * DELAY) == [names[0]]


def test_a_bucket_that_is_not_there_or_was_swept_away_is_made(spool_path: Path) -> None:
    name = accept(spool_path)
    with Spool.open(spool_path) as spool, LockedMessage.lock(spool, Spot(Place.NEW, name)) as locked:
        locked.move(Move.CLAIM)
        locked.leave()
        locked.move(Move.DEFER, "20261122T2200Z")
        locked.leave()
    assert [found.bucket for found in only(spool_path, "retry")] == ["20261122T2200Z"]


def test_a_sweep_opens_nothing_that_is_not_due(spool_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        opened: list[str] = []
        real_open = os.open

        def watched(path: str, *args: int, **keywords: int) -> int:
            opened.append(str(path))
            return real_open(path, *args, **keywords)

        monkeypatch.setattr(os, "open", watched)
        sweep(spool, NOW)
    assert opened == ["retry"]


def begin(spool: Spool) -> Incoming:
    return Incoming.create(spool, received=NOW, user="", peer="", envelope=envelope())


def test_only_old_and_unlocked_litter_is_swept_from_tmp(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        writing, dead, young = begin(spool), begin(spool), begin(spool)
        for incoming in (dead, young):
            incoming.release()  # Its receiver died.
        for incoming in (writing, dead):
            os.utime(spool_path / "tmp" / incoming.id, (NOW, NOW))
        os.utime(spool_path / "tmp" / young.id, (NOW + 2 * DAY - 60,) * 2)
        (spool_path / "tmp/README").touch()
        assert clean_tmp(spool, NOW + 2 * DAY) == [dead.id]
        assert names_in(spool_path / "tmp") == sorted([writing.id, young.id, "README"])
        writing.discard()


def test_a_receiver_whose_new_file_a_sweep_holds_just_then_refuses_the_message(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its lock a runner could have the message before it is durable, or the sweep the file."""
    with Spool.open(spool_path, create=True) as spool:
        looking: list[LockedMessage] = []

        def sweep_first(fd: int) -> bool:
            (name,) = names_in(spool_path / "tmp")
            looking.append(LockedMessage.lock(spool, Spot(Place.TMP, name)))
            return real_lock(fd)

        real_lock = incoming_module.lock
        monkeypatch.setattr(incoming_module, "lock", sweep_first)
        with pytest.raises(BlockingIOError):
            begin(spool)
        looking[0].release()
        assert names_in(spool_path / "tmp") == []


def test_a_file_that_somebody_removed_from_tmp_is_undone(spool_path: Path) -> None:
    """`rm spool/tmp/*` under a receiver: the client is told to come again."""
    with Spool.open(spool_path, create=True) as spool:
        incoming = begin(spool)
        incoming.seal(NOW)
        (spool_path / "tmp" / incoming.id).unlink()
        with pytest.raises(FileNotFoundError):
            incoming.move()
        incoming.undo()
    assert walk(spool_path, ("tmp", "new")) == {}


def test_discarding_or_releasing_twice_closes_nothing_else(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        for ending in (Incoming.discard, Incoming.release):
            incoming = begin(spool)
            ending(incoming)
            reused = os.open(spool_path, os.O_RDONLY)
            incoming.discard()
            incoming.release()
            os.fstat(reused)
            os.close(reused)


@pytest.mark.parametrize(
    ("inject", "reason"),
    [
        ("openat:error=EIO", "Input/output error"),
        (f"{MOVE}:error=EIO", "Input/output error"),
        (f"{MOVE}:error=ENOENT", "No such file or directory"),
    ],
)
def test_a_deferred_message_that_cannot_be_moved_stays_and_the_others_come_back(
    tmp_path: Path, spool_path: Path, inject: str, reason: str
) -> None:
    """A bad sector, a hand-typed mv in the same instant: reported, and no others wait for it."""
    for _ in range(3):
        accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        (bad, *_) = list(spots(spool, (Place.RETRY,)))
    # Each name of a directory is met in its turn: whichever is the bad one, there are others beside it.
    sweep = ("sweep", str(spool_path), str(NOW + 2 * DELAY))
    ran = straced(tmp_path / "log", *sweep, inject=(inject,), only=bad.path)
    assert ran.said_after("skipped") == [f"{bad.name} it cannot be moved to new/: {reason}"]
    assert len(ran.said_after("requeued")) == 2
    assert ran.said_after("stopped") == []
    assert [found.name for found in only(spool_path, "retry")] == [bad.name]
    assert len(only(spool_path, "new")) == 2


def test_a_sweep_stops_at_once_when_the_disk_is_full(tmp_path: Path, spool_path: Path) -> None:
    for _ in range(3):
        accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
    sweep = ("sweep", str(spool_path), str(NOW + 2 * DELAY))
    ran = straced(tmp_path / "log", *sweep, inject=(f"{MOVE}:error=ENOSPC",))
    assert ran.said == ["stopped ENOSPC"]


def test_litter_that_cannot_be_opened_or_removed_stays_and_the_rest_goes(
    tmp_path: Path, spool_path: Path
) -> None:
    with Spool.open(spool_path, create=True) as spool:
        litter = [begin(spool) for _ in range(3)]
        for incoming in litter:
            incoming.release()
            os.utime(spool_path / "tmp" / incoming.id, (NOW, NOW))
    bad = litter[1].id
    sweep = ("sweep", str(spool_path), str(NOW + 2 * DAY))
    for inject in ("openat:error=EIO", "unlinkat:error=EIO"):
        ran = straced(tmp_path / "log", *sweep, inject=(inject,), only=f"tmp/{bad}")
        assert ran.said_after("skipped") == [f"{bad} it cannot be removed: Input/output error"]
        assert names_in(spool_path / "tmp") == [bad]


def test_an_id_is_found_by_any_beginning_that_is_its_own(spool_path: Path) -> None:
    names = sorted(accept(spool_path, now=NOW + number) for number in range(5))
    with Spool.open(spool_path) as spool:
        assert [spot.name for spot in find(spool, names[2])] == [names[2]]
        assert sorted(spot.name for spot in find(spool, names[0][:5])) == names
        assert find(spool, "7ZZZ") == []
        assert count(spool, Place.NEW) == 5
        assert sorted(spot.name for spot in spots(spool)) == names


def test_a_message_that_moves_while_it_is_looked_for_is_found(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a place not yet looked into, to one that was."""
    name = accept(spool_path)
    (spool_path / "new" / name).rename(spool_path / "cur" / name)
    with Spool.open(spool_path) as spool:
        look_for_a_prefix, look_for_the_name = Spool.directory, os.stat
        moves = [("new", "cur"), ("cur", "new")]

        def move() -> None:
            source, to = moves.pop()
            (spool_path / source / name).rename(spool_path / to / name)

        def directory(self: Spool, place: str) -> object:
            if place == "cur" and len(moves) == 2:
                move()
            return look_for_a_prefix(self, place)

        def stat(path: str, **options: object) -> object:
            if path == f"cur/{name}" and len(moves) == 2:
                move()
            return look_for_the_name(path, **options)

        monkeypatch.setattr(Spool, "directory", directory)
        assert [spot.place for spot in find(spool, name[:-1])] == [Place.NEW]
        move()
        moves = [("new", "cur"), ("cur", "new")]
        monkeypatch.setattr(Spool, "directory", look_for_a_prefix)
        monkeypatch.setattr(os, "stat", stat)
        assert [spot.place for spot in find(spool, name)] == [Place.NEW]
        assert len(moves) == 1


def test_a_bucket_that_goes_while_it_is_listed_is_no_error(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        scan = spots(spool, (Place.RETRY,))
        (found,) = only(spool_path, "retry")
        extra = spool_path / "retry/20301122T2145Z"
        extra.mkdir()
        assert next(scan).name == found.name
        extra.rmdir()
        assert list(scan) == []
        assert bucket_time(found.bucket) > NOW
