"""A message that is handed over to another spool is sent from exactly one of the two, wherever it is cut."""

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from spools.crash import Boundary, dying_at
from spools.handing_over import (
    Cut,
    hand_over,
    owned,
    pipes,
    run_both,
    take_in,
    wrong_at_the_end,
    wrong_between,
)
from spools.states import Queue
from spools.walk import walk

from mailer.spool.directory import Spool
from mailer.spool.handover.mover import Result

pytestmark = pytest.mark.exhaustive


class Pair:
    """A spool with a message in each state, and an empty one."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.source, self.target = directory / "source", directory / "target"
        queue = Queue(self.source)
        Spool.open(self.target, create=True).close()
        to = "sent@example.net"
        self.new, self.late, self.held, self.failed, self.dead = (queue.new(to) for _ in range(5))
        queue.defer(self.late, "451 4.3.0 later", to, seconds=-60)
        queue.hold(self.held, "asked the customer first")
        queue.fail(self.failed, "550 5.1.1 unknown", to)
        queue.abandon(self.dead)
        queue.close()
        self.names = {self.new, self.late, self.held, self.failed, self.dead}
        self.before = walk(self.source)
        self.sent: Counter[str] = Counter()

    def hand_over(self, *, resumes: bool = False) -> dict[str, Result]:
        ends = pipes()
        thread = take_in(self.target, ends)
        outcomes = hand_over(self.source, ends, resumes=resumes)
        thread.join()
        return {outcome.spot.name: outcome.result for outcome in outcomes}

    def check_and_finish(self) -> None:
        """Check what a cut has left, with runners at work; resume, and check the end."""
        assert wrong_between(self.source, self.target, self.names, self.sent) == []
        run_both(self.source, self.target, self.sent)
        assert wrong_between(self.source, self.target, self.names, self.sent) == []
        assert set(self.hand_over(resumes=True).values()) <= {Result.DONE}
        run_both(self.source, self.target, self.sent)
        assert wrong_at_the_end(self.source, self.target, self.names, self.sent) == []
        assert set(self.sent) == {self.new, self.late, self.dead}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path / "pair")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, where there is such a place: durability is not what is tried."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None) as directory:
        yield Path(directory)


def test_a_message_keeps_everything_but_its_spool(pair: Pair) -> None:
    assert set(pair.hand_over().values()) == {Result.DONE}
    assert walk(pair.source) == {}
    after = owned(pair.target)
    assert {name: found.place for name, found in after.items()} == {
        pair.new: "new", pair.late: "new", pair.held: "hold", pair.failed: "failed", pair.dead: "new"
    }  # fmt: skip
    for name, found in after.items():
        before = pair.before[name]
        assert found.events[: len(before.events)] == before.events
        assert (found.message, found.sender, found.recipients) == (
            before.message, before.sender, before.recipients
        )  # fmt: skip
        assert found.kinds[-3:] == ["moving", "arriving", "arrived"]
    assert after[pair.held].held
    run_both(pair.source, pair.target, pair.sent)
    assert pair.sent == Counter([pair.new, pair.late, pair.dead])


def test_a_message_that_waits_arrives_in_its_bucket(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "pair")
    pair.hand_over()
    queue = Queue(pair.source)
    waits = queue.new()
    queue.defer(waits, "451 4.3.0 later", seconds=7200)
    bucket = walk(pair.source)[waits].bucket
    pair.hand_over()
    assert (owned(pair.target)[waits].place, owned(pair.target)[waits].bucket) == ("retry", bucket)


@pytest.mark.parametrize("how", ["whole", "torn"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_wherever_a_side_dies_each_message_is_on_one_side(memory: Path, side: str, how: str) -> None:
    """Every call of either side that changes something is its last one, once; torn, if it is a write."""
    calls = _dying(Pair(memory / "first"), side, None).calls
    assert len(calls) > 30
    for die_at, name in enumerate(calls):
        if how == "whole" or name == "write":
            pair = Pair(memory / str(die_at))
            assert _dying(pair, side, die_at, torn=how == "torn").dead
            pair.check_and_finish()


def _dying(pair: Pair, side: str, die_at: int | None, *, torn: bool = False) -> Boundary:
    ends = pipes()
    with dying_at(die_at, torn=torn) as boundary:
        boundary.thread = -1  # Nobody yet.

        def began() -> None:
            boundary.thread = threading.get_ident()

        thread = take_in(pair.target, ends, began if side == "target" else lambda: None)
        hand_over(pair.source, ends, resumes=False, dies=boundary if side == "source" else None)
        thread.join()
    return boundary


@pytest.mark.parametrize("direction", ["there", "back"])
def test_wherever_the_connection_breaks_each_message_is_on_one_side(memory: Path, direction: str) -> None:
    """It passes on so many octets in one direction, and then ends in both."""
    step = 211 if direction == "there" else 23
    whole = _broken(Pair(memory / "first"), direction, 1 << 30)
    assert whole > 10 * step
    for most in range(0, whole, step):
        pair = Pair(memory / str(most))
        _broken(pair, direction, most)
        pair.check_and_finish()


def _broken(pair: Pair, direction: str, most: int) -> int:
    """Hand over by a connection that ends after `most` octets; return how many were passed on."""
    cut = Cut(**{direction: most})
    thread = take_in(pair.target, cut.target)
    hand_over(pair.source, cut.source, resumes=False)
    thread.join()
    cut.join()
    return cut.passed[direction]


def test_a_full_target_takes_nothing_and_nothing_is_lost(pair: Pair) -> None:
    """It keeps `minFreeSpace`."""
    ends = pipes()
    thread = take_in(pair.target, ends, min_free=1 << 62)
    outcomes = hand_over(pair.source, ends, resumes=False)
    thread.join()
    assert {outcome.result for outcome in outcomes} == {Result.FAILED}
    assert "minFreeSpace" in outcomes[0].reason
    assert walk(pair.target) == {}
    assert owned(pair.source).keys() == pair.names
    run_both(pair.source, pair.target, pair.sent)
    assert pair.sent == Counter([pair.new, pair.late, pair.dead])
    assert owned(pair.source)[pair.held].held


def test_a_copy_with_the_same_id_is_the_same_message_or_is_refused(pair: Pair) -> None:
    for name, change in (
        (pair.new, b""),
        (pair.held, b'{"at":"","event":"bounced","to":["sent@example.net"]}\r\n'),
    ):
        copy = pair.target / "hold" / name
        [path] = pair.source.rglob(name)
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        path.write_bytes(path.read_bytes() + change)
    outcomes = pair.hand_over()
    assert (outcomes[pair.new], outcomes[pair.held]) == (Result.DONE, Result.REFUSED)
    assert walk(pair.source).keys() == {pair.held}
    assert owned(pair.source)[pair.held].place == "hold"


def test_it_goes_back_and_forth(pair: Pair) -> None:
    for _ in range(3):
        assert set(pair.hand_over().values()) == {Result.DONE}
        pair.source, pair.target = pair.target, pair.source
    run_both(pair.source, pair.target, pair.sent)
    assert wrong_at_the_end(pair.source, pair.target, pair.names, pair.sent) == []
    assert pair.sent == Counter([pair.new, pair.late, pair.dead])
