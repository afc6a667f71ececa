"""kill -9 at every system call: what was acknowledged is there, and the next run ends it."""

from collections import Counter
from pathlib import Path

import pytest
from spools.programs import message_of
from spools.runner import HORIZON, claims_of, run_once
from spools.strace import points, straced
from spools.strategies import NOW, accept
from spools.walk import only, walk

from mailer.spool.directory import Spool
from mailer.spool.layout import Place
from mailer.spool.run.sweep import clean_tmp, requeue_due

pytestmark = pytest.mark.fault_row(1)

SIZES = (0, 300_000)
"""One written at once, and one streamed with its length written last."""
ADDRESSES = ("sent@example.net", "deferred@example.net")
DAY = 86400.0


def test_whatever_a_killed_receiver_acknowledged_is_in_new_and_whole(tmp_path: Path) -> None:
    watched = straced(tmp_path / "log", "receive", str(fresh(tmp_path / "watched")), *map(str, SIZES))
    assert len(watched.said_after("accepted")) == len(SIZES)
    kills = points(watched.calls)
    assert {name for name, _ in kills} >= {"openat", "flock", "write", "pwrite64", "fsync", "renameat2"}
    for number, (name, when) in enumerate(kills):
        root = fresh(tmp_path / str(number))
        ran = straced(
            tmp_path / "log",
            "receive",
            str(root),
            *map(str, SIZES),
            inject=(f"{name}:signal=KILL:when={when}",),
        )
        assert ran.status == -9, (name, when)
        check_received(root, ran.said_after("accepted"))


def fresh(root: Path) -> Path:
    Spool.open(root, create=True).close()
    return root


def check_received(root: Path, accepted: list[str]) -> None:
    queue = walk(root)
    assert set(accepted) <= set(queue)
    for found in queue.values():
        assert (found.place, found.intact) == ("new", True)
        assert found.message == message_of(len(found.message))
    with Spool.open(root) as spool:
        litter = set(walk(root, ("tmp",)))
        assert clean_tmp(spool, NOW) == [], "what is young is left alone"
        assert set(clean_tmp(spool, 4e9)) == litter
        run_once(spool, NOW)
    assert {found.place for found in walk(root, tuple(Place)).values()} <= {"retry", "cur"}
    assert set(accepted) <= set(walk(root))


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_killed_runners_message_is_finished_by_the_next_run(tmp_path: Path, address: str) -> None:
    """Nobody is mailed twice, except where the runner died between the delivery and its record."""
    root = tmp_path / "watched"
    accept(root, b"x", address)
    watched = straced(tmp_path / "log", "run", str(root))
    assert watched.said[-1] == "done"
    place = None if address.startswith("sent") else "retry"
    kills = points(watched.calls)
    assert {name for name, _ in kills} >= {"openat", "flock", "write", "fallocate"}
    for number, (name, when) in enumerate(kills):
        root = tmp_path / str(number)
        accepted = accept(root, b"x", address)
        killed = straced(tmp_path / "log", "run", str(root), inject=(f"{name}:signal=KILL:when={when}",))
        assert killed.status == -9, (name, when)
        (left,) = walk(root).values() or [None]
        again: list[str] = []
        with Spool.open(root) as spool:
            run_once(spool, NOW, lambda *to, again=again: again.append(" ".join(to)))
        deliveries = Counter([*killed.said_after("delivered"), *again])
        assert set(deliveries) == {f"{accepted} {address}"}
        if max(deliveries.values()) > 1:
            assert left
            assert left.kinds[-1] == "committing"
        ended = walk(root)
        assert [found.place for found in ended.values()] == ([place] if place else [])
        assert only(root, "tmp") == []
        if place == "retry":
            with Spool.open(root) as spool:
                due = requeue_due(spool, claims_of(spool, NOW + DAY), NOW + DAY, HORIZON)
                assert [spot.name for spot in due] == [accepted]
