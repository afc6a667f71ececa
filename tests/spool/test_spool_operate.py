"""What the operator may do, and what is refused; and the moves that the table does not have."""

import os
from pathlib import Path
from typing import Any

import pytest
from spools.intruders import INTRUDERS
from spools.runner import attempt, claims_of, run_once, settle
from spools.strategies import NOW, accept
from spools.syncs import Fsyncs
from spools.walk import in_two_places, only, walk

from mailer.spool.checks.fsck import findings
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.ids import new_id
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import Busy, LockedMessage, Unsafe
from mailer.spool.run.operate import Operator, Refused
from mailer.spool.scan import find
from mailer.spool.transitions import TRANSITIONS, Move, target


def place_in(spool: Spool, root: Path, place: Place) -> Spot:
    """Bring a message to rest in a place of the queue."""
    kind = {Place.RETRY: "deferred", Place.FAILED: "bounced"}.get(place, "sent")
    name = accept(root, b"x", f"{kind}@example.net")
    if place in {Place.RETRY, Place.FAILED}:
        run_once(spool, NOW)
    elif place is not Place.NEW:
        (root / "new" / name).rename(root / place.value / name)
    (spot,) = find(spool, name)
    return spot


@pytest.mark.parametrize("place", [Place.NEW, Place.CUR, Place.RETRY, Place.FAILED])
def test_a_message_is_held_and_released_from_everywhere(spool_path: Path, place: Place) -> None:
    with Spool.open(spool_path, create=True) as spool:
        spot = place_in(spool, spool_path, place)
        operator = Operator(spool, "ann")
        operator.hold(spot, NOW, "looks odd")
        (found,) = only(spool_path, "hold")
        assert found.events[-1] | {"at": ""} == {
            "at": "",
            "event": "held",
            "by": "ann",
            "reason": "looks odd",
        }
        before = found.statuses
        operator.release(Spot(Place.HOLD, spot.name), NOW)
        (found,) = only(spool_path, "new")
        assert (found.statuses, found.held) == (before, False)


@pytest.mark.parametrize("has_moved", [False, True])
def test_a_hold_of_failed_mail_that_a_fault_ended_is_given_again(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_moved: bool
) -> None:
    """Between its line and its move, or with both names: no run looks there."""
    with Spool.open(spool_path, create=True) as spool:
        spot = place_in(spool, spool_path, Place.FAILED)
        operator = Operator(spool, "ann")
        operator.holding(spot, NOW).locked.release()
        if has_moved:
            os.link(spot.path, f"hold/{spot.name}", src_dir_fd=spool.root, dst_dir_fd=spool.root)
            told = [finding.problem for finding in findings(spool, NOW) if "is also" in finding.problem]
            assert len(told) == 2
            assert all(f"type `mailer spool hold {spot.name}`" in each for each in told)
        (again,) = find(spool, spot.name)
        synced = Fsyncs(monkeypatch).paths
        operator.hold(again, NOW)
        assert [found.held for found in only(spool_path, "hold")] == [True]
        assert in_two_places(spool_path) == only(spool_path, "failed") == []
        assert synced[-2:] == ["hold", "failed"]


@pytest.mark.parametrize("place", [Place.NEW, Place.CUR, Place.RETRY, Place.HOLD, Place.FAILED])
def test_a_message_is_retried_from_everywhere(spool_path: Path, place: Place) -> None:
    """Those in new/ and in a dead runner's cur/ stay: the next run takes them."""
    with Spool.open(spool_path, create=True) as spool:
        spot = place_in(spool, spool_path, place)
        Operator(spool, "ann").retry(spot, NOW)
        found = walk(spool_path)[spot.name]
        assert found.place == ("cur" if place is Place.CUR else "new")
        assert set(found.statuses.values()) <= {"pending", "deferred"}
        mailed: list[str] = []
        run_once(spool, NOW, lambda _, address: mailed.append(address))
        assert len(mailed) == 1


@pytest.mark.parametrize("place", [p for p in Place if p not in {Place.TMP, Place.SENT}])
def test_a_message_is_removed_from_everywhere(spool_path: Path, place: Place) -> None:
    with Spool.open(spool_path, create=True) as spool:
        Operator(spool, "ann").remove(place_in(spool, spool_path, place))
        assert walk(spool_path) == {}


@pytest.mark.parametrize("kind", ["FIFO", "symbolic link", "dangling link", "socket", "directory"])
def test_what_was_quarantined_and_is_no_file_is_removed(spool_path: Path, kind: str) -> None:
    with Spool.open(spool_path, create=True) as spool:
        spot = Spot(Place.CORRUPT, new_id(NOW))
        INTRUDERS[kind](spool_path / spot.path)
        Operator(spool, "ann").remove(spot)
        assert list((spool_path / "corrupt").iterdir()) == []
    assert (spool_path.parent / "secret").exists() == (kind == "symbolic link"), "what a link names stays"


def test_a_quarantined_directory_with_files_is_left_to_the_operator(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        spot = Spot(Place.CORRUPT, new_id(NOW))
        INTRUDERS["directory with files"](spool_path / spot.path)
        with pytest.raises(Refused, match="a directory that is not empty"):
            Operator(spool, "ann").remove(spot)
        assert (spool_path / spot.path / "x").exists()


@pytest.mark.parametrize("place", [Place.NEW, Place.HOLD])
def test_what_was_not_quarantined_is_not_removed_by_its_name(spool_path: Path, place: Place) -> None:
    with Spool.open(spool_path, create=True) as spool:
        spot = Spot(place, new_id(NOW))
        INTRUDERS["FIFO"](spool_path / spot.path)
        with pytest.raises(Unsafe):
            Operator(spool, "ann").remove(spot)
        assert (spool_path / spot.path).exists()


def test_what_the_table_does_not_have_is_refused(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        operator = Operator(spool, "ann")
        corrupt = place_in(spool, spool_path, Place.CORRUPT)
        new = place_in(spool, spool_path, Place.NEW)
        hold = place_in(spool, spool_path, Place.HOLD)
        for verb, spot in ((operator.retry, corrupt), (operator.hold, corrupt), (operator.hold, hold)):
            with pytest.raises(Refused, match=f"it is in {spot.place}/"):
                verb(spot, NOW)
        with pytest.raises(Refused, match="it is not held: it is in new/"):
            operator.release(new, NOW)
        with pytest.raises(Refused):
            operator.remove(Spot(Place.TMP, new.name))
        assert {found.place for found in walk(spool_path).values()} == {"corrupt", "new", "hold"}


def test_a_message_in_a_runners_hands_answers_busy(spool_path: Path) -> None:
    name = accept(spool_path)
    with Spool.open(spool_path) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        operator, spot = Operator(spool, "ann"), Spot(Place.CUR, name)
        for verb in (
            lambda: operator.hold(spot, NOW),
            lambda: operator.retry(spot, NOW),
            lambda: operator.remove(spot),
        ):
            with pytest.raises(Busy):
                verb()
        claim.locked.release()


def test_a_damaged_message_is_neither_retried_nor_written_to(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        spot = place_in(spool, spool_path, Place.FAILED)
        path = spool_path / spot.path
        path.write_bytes(path.read_bytes().replace(b"bounced@", b"b0unced@", 1))
        before = path.read_bytes()
        operator = Operator(spool, "ann")
        for verb in (operator.retry, operator.hold):
            with pytest.raises(Corrupt, match="envelope's digest"):
                verb(spot, NOW)
        assert path.read_bytes() == before


def test_a_held_message_that_reached_new_by_hand_is_held_again(spool_path: Path) -> None:
    """The journal decides; the directory is a hint."""
    with Spool.open(spool_path, create=True) as spool:
        spot = place_in(spool, spool_path, Place.NEW)
        Operator(spool, "ann").hold(spot, NOW)
        (spool_path / "hold" / spot.name).rename(spool_path / "new" / spot.name)
        mailed: list[str] = []
        run_once(spool, NOW, lambda _, address: mailed.append(address))
    assert mailed == []
    assert [found.name for found in only(spool_path, "hold")] == [spot.name]


def test_the_table_of_moves_leads_from_the_queue_to_the_queue_and_never_back_to_tmp() -> None:
    for move, (sources, destination) in TRANSITIONS.items():
        assert destination is not Place.TMP
        assert (Place.SENT in sources) == (move is Move.PRUNE), "what was sent never moves again"
        assert (Place.TMP in sources) == (
            move in {Move.COMMIT, Move.SCHEDULE, Move.ARRIVE, Move.ARRIVE_FAILED}
        )
        for place in Place:
            if place in sources:
                assert target(move, place) == destination
            else:
                with pytest.raises(ValueError, match=f"no move {move} from {place}/"):
                    target(move, place)


@pytest.mark.parametrize(
    ("move", "bucket"), [(Move.DEFER, ""), (Move.FAIL, "20261122T2200Z"), (Move.REQUEUE, "")]
)
def test_a_move_that_is_not_there_changes_nothing(spool_path: Path, move: Move, bucket: str) -> None:
    """Without its bucket a deferred message would lie where no sweep looks."""
    name = accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        with pytest.raises(ValueError, match=r"no move|no defer|no fail"):
            claim.locked.move(move, bucket)
        assert [found.name for found in only(spool_path, "cur")] == [name]
        attempt(claim, NOW)
        settle(spool, claim, NOW)
    assert [found.name for found in only(spool_path, "retry")] == [name]


def test_nothing_is_moved_without_its_lock(spool_path: Path) -> None:
    name = accept(spool_path)
    with Spool.open(spool_path) as spool:
        locked = LockedMessage.lock(spool, Spot(Place.NEW, name))
        locked.release()
        with pytest.raises(ValueError, match="no lock"):
            locked.move(Move.CLAIM)
    assert [found.name for found in only(spool_path, "new")] == [name]


@pytest.mark.parametrize("verb", ["remove", "hold"])
def test_a_sweep_that_removes_the_emptied_bucket_at_once_makes_no_failure(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The bucket goes between the message's leaving it and its sync, so its parent is what is synced."""
    with Spool.open(spool_path, create=True) as spool:
        spot = place_in(spool, spool_path, Place.RETRY)
        bucket, real_open, real_fsync = spool_path / spot.directory, os.open, os.fsync
        synced: list[int] = []

        def sweep_first(path: Any, flags: int, *rest: Any, **keywords: Any) -> int:
            if path == spot.directory and bucket.exists():
                bucket.rmdir()
            return real_open(path, flags, *rest, **keywords)

        def note(fd: int) -> None:
            synced.append(os.fstat(fd).st_ino)
            real_fsync(fd)

        monkeypatch.setattr(os, "open", sweep_first)
        monkeypatch.setattr(os, "fsync", note)
        operator = Operator(spool, "ann")
        if verb == "remove":
            operator.remove(spot)
        else:
            operator.hold(spot, NOW)
        monkeypatch.undo()
        assert not bucket.exists()
        assert (spool_path / "retry").stat().st_ino in synced
        assert {found.place for found in walk(spool_path).values()} == ({"hold"} if verb == "hold" else set())
