"""Every operation dies before its n-th system call, for every n; then the next run recovers.

A crash leaves a message where it was or where it went, with the journal of the one or the other, and recovery
ends what was begun. `test_spool_kill` does the same to real processes.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from spools.crash import dying_at
from spools.runner import DELAY, HORIZON, attempt, claims_of, run_once, settle
from spools.strategies import NOW, accept, envelope, receive
from spools.walk import Found, walk

from mailer.spool.directory import Spool
from mailer.spool.layout import Place, Spot
from mailer.spool.run.operate import Operator
from mailer.spool.run.sweep import clean_tmp, requeue_due
from mailer.spool.scan import find

pytestmark = pytest.mark.exhaustive

LATER = NOW + 2 * DELAY

Operation = Callable[[Spool, str], object]
State = tuple[str, tuple[str, ...], bool]
"""A message's place, its recipients' statuses, and whether it is held."""


def spot_of(spool: Spool, name: str) -> Spot:
    (spot,) = find(spool, name)
    return spot


def sweep(spool: Spool, name: str) -> None:
    assert [spot.name for spot in requeue_due(spool, claims_of(spool, LATER), LATER, HORIZON)] == [name]


def resting_in(place: str, root: Path) -> str:
    """Bring a message to rest in a place, as it comes there in life."""
    local_part = {"retry": "deferred", "failed": "bounced"}.get(place, "sent")
    name = accept(root, b"x", f"{local_part}@example.net")
    with Spool.open(root) as spool:
        if place in {"retry", "failed"}:
            run_once(spool, NOW)
        elif place == "hold":
            Operator(spool, "ann").hold(Spot(Place.NEW, name), NOW)
        elif place == "cur":
            claim = claims_of(spool, NOW).claim(name)
            assert claim
            claim.locked.release()  # Its runner died.
    return name


OPERATIONS: dict[str, tuple[str, Operation, set[State]]] = {
    "claim and send": (
        "new",
        lambda spool, _: run_once(spool, NOW),
        {("new", ("pending",), False), ("cur", ("pending",), False), ("cur", ("uncertain",), False)}
        | {("cur", ("sent",), False)},
    ),
    "recover and send": (
        "cur",
        lambda spool, _: run_once(spool, NOW),
        {("cur", ("pending",), False), ("cur", ("uncertain",), False), ("cur", ("sent",), False)},
    ),
    "hold new": (
        "new",
        lambda spool, name: Operator(spool, "ann").hold(spot_of(spool, name), NOW),
        {("new", ("pending",), False), ("new", ("pending",), True), ("hold", ("pending",), True)},
    ),
    "hold deferred": (
        "retry",
        lambda spool, name: Operator(spool, "ann").hold(spot_of(spool, name), NOW),
        {("retry", ("deferred",), False), ("retry", ("deferred",), True), ("hold", ("deferred",), True)},
    ),
    "release": (
        "hold",
        lambda spool, name: Operator(spool, "ann").release(spot_of(spool, name), NOW),
        {("hold", ("pending",), True), ("hold", ("pending",), False), ("new", ("pending",), False)},
    ),
    "retry failed": (
        "failed",
        lambda spool, name: Operator(spool, "ann").retry(spot_of(spool, name), NOW),
        {("failed", ("bounced",), False), ("failed", ("pending",), False), ("new", ("pending",), False)},
    ),
    "retry deferred": (
        "retry",
        lambda spool, name: Operator(spool, "ann").retry(spot_of(spool, name), NOW),
        {("retry", ("deferred",), False), ("new", ("deferred",), False)},
    ),
    "remove": (
        "failed",
        lambda spool, name: Operator(spool, "ann").remove(spot_of(spool, name)),
        {("failed", ("bounced",), False)},
    ),
    "sweep": ("retry", sweep, {("retry", ("deferred",), False), ("new", ("deferred",), False)}),
    "clean tmp": ("new", lambda spool, _: clean_tmp(spool, LATER), {("new", ("pending",), False)}),
}


def seen(found: Found) -> State:
    return found.place, tuple(found.statuses.values()), found.held


@pytest.mark.parametrize("cut", ["whole", "torn"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_crash_leaves_the_old_state_or_the_new_one_and_recovery_ends_it(
    tmp_path: Path, operation: str, cut: str
) -> None:
    place, operate, allowed = OPERATIONS[operation]
    die_at = 0
    while True:
        root = tmp_path / str(die_at)
        name = resting_in(place, root)
        before = walk(root)[name]
        with Spool.open(root) as spool, dying_at(die_at, torn=cut == "torn") as boundary:
            operate(spool, name)
        if not boundary.dead:
            break
        check_crashed(root, name, before, allowed)
        check_recovered(root, name)
        die_at += 1
    assert die_at == len(boundary.calls) > 0


def check_crashed(root: Path, name: str, before: Found, allowed: set[State]) -> None:
    queue = walk(root)
    if not queue:
        # Removed by the operator, or sent: nothing else may make a message vanish.
        assert ("cur", ("sent",), False) in allowed or before.place == "failed"
        return
    (found,) = queue.values()
    assert (found.name, found.intact, found.message) == (name, True, before.message)
    assert found.recipients == before.recipients
    assert found.events[: len(before.events)] == before.events
    assert seen(found) in allowed


def check_recovered(root: Path, name: str) -> None:
    """The next run finishes what was begun; what the operator did not finish waits for him."""
    left = walk(root).get(name)
    mailed: list[str] = []
    with Spool.open(root) as spool:
        list(requeue_due(spool, claims_of(spool, LATER), LATER, HORIZON))
        run_once(spool, LATER, lambda _, address: mailed.append(address))
    now = walk(root).get(name)
    if left is None:
        assert now is None
    elif left.held:
        assert now
        assert (now.place, mailed) == ("hold", [])
    elif left.place in {"hold", "failed"}:
        assert now
        assert (now.place, mailed) == (left.place, [])
    else:
        already = "sent" in left.statuses.values()
        assert len(mailed) == (not already)
        assert (now is None) == ("sent@example.net" in left.statuses)


@pytest.mark.parametrize("size", [10, 300_000])
@pytest.mark.parametrize("cut", ["whole", "torn"])
def test_a_receivers_crash_leaves_nothing_in_new_that_is_not_whole(
    tmp_path: Path, size: int, cut: str
) -> None:
    die_at = 0
    while True:
        root = tmp_path / str(die_at)
        acknowledged: list[str] = []
        with Spool.open(root, create=True) as spool:
            with dying_at(die_at, torn=cut == "torn") as boundary:
                acknowledged.append(receive(spool, bytes(size), envelope()))
            queue = walk(root)
            assert set(acknowledged) <= set(queue)
            assert all(found.place == "new" and found.intact for found in queue.values())
            litter = set(walk(root, ("tmp",)))
            assert len(litter) + len(queue) == (die_at > 0)
            assert clean_tmp(spool, NOW) == []
            assert set(clean_tmp(spool, 4e9)) == litter
        if not boundary.dead:
            break
        die_at += 1
    assert boundary.calls.count("fsync") == 2, "the file and new/"
    assert die_at == len(boundary.calls)


@pytest.mark.parametrize("cut", ["whole", "torn"])
@pytest.mark.parametrize("place", ["deferred", "bounced"])
def test_a_crash_of_a_crashs_recovery_is_recovered_too(tmp_path: Path, place: str, cut: str) -> None:
    """Dies at n, recovers and dies at m, recovers: one delivery for each record of one that began."""
    ended = False
    for first in range(100):
        for second in range(0, 100, 3):
            root = tmp_path / f"{first}-{second}"
            name = accept(root, b"x", f"{place}@example.net")
            mailed: list[str] = []
            deaths = []
            for die_at in (first, second, None):
                with Spool.open(root) as spool, dying_at(die_at, torn=cut == "torn") as boundary:
                    run_once(spool, NOW, lambda _, address, mailed=mailed: mailed.append(address))
                deaths.append(boundary.dead)
            (found,) = walk(root).values()
            assert (found.name, found.intact) == (name, True)
            assert found.place == {"deferred": "retry", "bounced": "failed"}[place]
            assert found.statuses == {f"{place}@example.net": place}
            assert 1 <= len(mailed) <= found.kinds.count("committing")
            ended = not deaths[0]
            if not deaths[1]:
                break
        if ended:
            break
    assert ended


def test_claims_that_died_with_outcomes_are_not_tried_again(spool_path: Path) -> None:
    """The outcome is in the journal, the move is not made: recovery makes the move and mails nobody."""
    name = accept(spool_path, b"x", "bounced@example.net", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        attempt(claim, NOW)
        claim.locked.release()
        recovered = claims_of(spool, NOW).recover(name)
        assert recovered
        settle(spool, recovered, NOW)
    assert walk(spool_path)[name].place == "retry"
