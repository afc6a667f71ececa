"""What else may lie in a queue: never followed, never waited for, never sent, and never in others' way."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from spools.intruders import INTRUDERS, make_link
from spools.runner import claims_of, run_once
from spools.strategies import NOW, accept, envelope, receive
from spools.walk import only, walk
from testbed.ci import only_root

from mailer.spool.directory import Spool
from mailer.spool.ids import new_id
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import Unsafe
from mailer.spool.run.operate import Operator
from mailer.spool.run.sweep import clean_tmp, requeue_due
from mailer.spool.scan import QUEUE, spots

DAY = 86400.0


@pytest.mark.fault_row(9)
@pytest.mark.security_case(86)
@pytest.mark.parametrize("make", INTRUDERS.values(), ids=INTRUDERS)
@pytest.mark.parametrize("place", ["new", "cur"])
def test_an_intruder_is_quarantined_and_the_others_flow(
    spool_path: Path, make: Callable[[Path], object], place: str
) -> None:
    good = accept(spool_path, b"x", "deferred@example.net")
    name = new_id(NOW - 1)
    make(spool_path / place / name)
    told: list[str] = []
    with Spool.open(spool_path) as spool:
        claims = claims_of(spool, NOW, lambda spot, reason: told.append(f"{spot.name}: {reason}"))
        take = claims.claim if place == "new" else claims.recover
        assert take(name) is None
        assert (spool_path / "corrupt" / name).is_symlink() or (spool_path / "corrupt" / name).exists()
        assert len(told) == 1
        assert told[0].startswith(f"{name}: ")
        run_once(spool, NOW)
    assert [found.name for found in only(spool_path, "retry")] == [good]


@pytest.mark.parametrize("make", INTRUDERS.values(), ids=INTRUDERS)
@pytest.mark.parametrize("place", QUEUE)
def test_no_operator_can_send_an_intruder(
    spool_path: Path, make: Callable[[Path], object], place: Place
) -> None:
    """It is refused wherever it lies, and lies where it was."""
    with Spool.open(spool_path, create=True) as spool:
        spot = Spot(place, new_id(NOW), "20261122T2145Z" if place is Place.RETRY else "")
        (spool_path / spot.directory).mkdir(exist_ok=True)
        make(spool_path / spot.path)
        assert list(spots(spool)) == [spot]
        operator = Operator(spool, "ann")
        for verb in (operator.retry, operator.hold, operator.release):
            with pytest.raises((Unsafe, ValueError)):
                verb(spot, NOW)
        assert list(spots(spool)) == [spot]


@pytest.mark.parametrize("make", INTRUDERS.values(), ids=INTRUDERS)
def test_the_sweeps_go_round_an_intruder(spool_path: Path, make: Callable[[Path], object]) -> None:
    good = accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        (found,) = only(spool_path, "retry")
        make(spool_path / "retry" / found.bucket / new_id(NOW - 1))
        make(spool_path / "tmp" / new_id(NOW - 1))
        moved = [spot.name for spot in requeue_due(spool, claims_of(spool, NOW), NOW + DAY, 3600)]
        assert good in moved
        clean_tmp(spool, NOW + 10 * 365 * DAY)
        run_once(spool, NOW + DAY)
    assert [found.name for found in only(spool_path, "retry")] == [good]
    assert (spool_path.parent / "secret").exists() == (make is make_link)


@pytest.mark.security_case(86)
@pytest.mark.parametrize("place", ["new", "cur"])
def test_a_file_with_a_second_link_is_skipped_and_reported(
    tmp_path: Path, spool_path: Path, place: str
) -> None:
    """Somebody is backing it up with `cp -l`, or can write into it from elsewhere: it is not sent."""
    name = accept(spool_path)
    path = (spool_path / "new" / name).rename(spool_path / place / name)
    os.link(path, tmp_path / "elsewhere")
    told: list[str] = []
    with Spool.open(spool_path) as spool:
        claims = claims_of(spool, NOW, lambda _, reason: told.append(reason))
        assert (claims.claim if place == "new" else claims.recover)(name) is None
        assert told == ["it has 2 links: a path outside of the spool names the same file"]
        assert [found.name for found in only(spool_path, place)] == [name]
        (tmp_path / "elsewhere").unlink()
        run_once(spool, NOW)
    assert walk(spool_path)[name].kinds[-1] == "committing"


@only_root("only root can give a file away")
def test_another_users_file_is_skipped_and_reported(spool_path: Path) -> None:
    name = accept(spool_path)
    os.chown(spool_path / "new" / name, 4711, 4711)
    told: list[str] = []
    with Spool.open(spool_path) as spool:
        assert claims_of(spool, NOW, lambda _, reason: told.append(reason)).claim(name) is None
    assert told == ["it belongs to user 4711"]
    assert [found.name for found in only(spool_path, "new")] == [name]


@pytest.mark.parametrize(
    "name", ["README", ".hidden", "x" * 200, "core", "01jd0m3q5v8z7x2c4b6n8m0k1j", "a\nb", "*"]
)
def test_names_that_are_no_ids_are_ignored(spool_path: Path, name: str) -> None:
    with Spool.open(spool_path, create=True) as spool:
        good = receive(spool, b"x", envelope())
        for place in QUEUE:
            (spool_path / place / name).write_bytes(b"x")
        assert [spot.name for spot in spots(spool)] == [good]


def test_a_link_put_in_place_of_a_claimed_file_is_not_moved_to_nor_written_through(
    tmp_path: Path, spool_path: Path
) -> None:
    name = accept(spool_path)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (spool_path / "cur" / name).symlink_to(victim)
    with Spool.open(spool_path) as spool:
        assert claims_of(spool, NOW).claim(name) is None
    assert victim.read_bytes() == b"precious"
    assert [found.name for found in only(spool_path, "new")] == [name]
