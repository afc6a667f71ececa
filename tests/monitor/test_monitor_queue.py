"""The view of the queue: always what is there, at a cost of what has changed."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.waiting import until

from mailer.monitor.queue import SAMPLE, QueueView
from mailer.spool.directory import Spool
from mailer.spool.ids import arrival, new_id
from mailer.spool.layout import Place, bucket_for, bucket_time
from mailer.spool.scan import QUEUE

NOW = 1_795_000_000.0


@pytest.fixture
def spool(spool_path: Path) -> Iterator[Spool]:
    with Spool.open(spool_path, create=True) as opened:
        yield opened


def put(spool: Spool, directory: str, received: float = NOW) -> str:
    """An empty file will do: the view opens none."""
    name = new_id(received)
    spool.make_directory(directory)
    os.close(os.open(f"{directory}/{name}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=spool.root))
    return name


def there(spool: Spool) -> dict[Place, list[str]]:
    """The ids of each place, the slow and obvious way."""
    return {
        place: sorted(name for _, _, names in os.walk(spool.path / place) for name in names)
        for place in QUEUE
    }


def seen(view: QueueView) -> dict[Place, tuple[int, list[str]]]:
    snapshot = view.snapshot()
    return {place: (snapshot[place].count, [s.name for s in snapshot[place].oldest]) for place in QUEUE}


def test_after_every_move_it_shows_what_is_there(spool: Spool) -> None:
    """A thousand random moves, some of them within one tick of the kernel's clock."""
    chance = random.Random(26)
    view = QueueView(spool, time.time)
    buckets = [f"retry/{bucket_for(NOW + 60 * minute)}" for minute in range(4)]
    places = [place.value for place in QUEUE if place is not Place.RETRY] + buckets
    files: list[tuple[str, str]] = []
    for step in range(1000):
        action = chance.random()
        if action < 0.5 or not files:
            directory = chance.choice(places)
            files.append((directory, put(spool, directory, NOW + chance.randrange(10**6))))
        else:
            directory, name = files.pop(chance.randrange(len(files)))
            if action < 0.75:
                target = chance.choice(places)
                spool.make_directory(target)
                os.rename(
                    f"{directory}/{name}", f"{target}/{name}", src_dir_fd=spool.root, dst_dir_fd=spool.root
                )
                files.append((target, name))
            else:
                os.unlink(f"{directory}/{name}", dir_fd=spool.root)
            if directory in buckets and not any((spool.path / directory).iterdir()):
                os.rmdir(directory, dir_fd=spool.root)
        if step % 3 == 0:
            expected = there(spool)
            assert seen(view) == {place: (len(ids), ids[:SAMPLE]) for place, ids in expected.items()}


def test_it_counts_messages_and_nothing_else(spool: Spool) -> None:
    for name in ("README", ".hidden", "01J", "x" * 26):
        (spool.path / "new" / name).touch()
    (spool.path / "retry" / "notes").mkdir()
    (spool.path / "retry" / "notes" / new_id(NOW)).touch()
    assert QueueView(spool, time.time).snapshot().waiting == 0


def test_ages_and_the_schedule(spool: Spool) -> None:
    put(spool, "new", NOW - 10)
    oldest = put(spool, "new", NOW - 500)
    put(spool, "failed", NOW - 9000)
    soon, later = bucket_for(NOW + 60), bucket_for(NOW + 600)
    put(spool, f"retry/{later}")
    for _ in range(2):
        put(spool, f"retry/{soon}", NOW - 700)
    snapshot = QueueView(spool, time.time).snapshot()
    assert snapshot[Place.NEW].age(NOW) == pytest.approx(500)
    assert snapshot[Place.NEW].oldest[0].name == oldest
    assert arrival(oldest) == pytest.approx(NOW - 500)
    assert snapshot[Place.CUR].age(NOW) is None
    assert snapshot.waiting_age(NOW) == pytest.approx(700)
    assert snapshot.waiting == 5
    assert snapshot.due == ((bucket_time(soon), 2), (bucket_time(later), 1))
    assert [spot.bucket for spot in snapshot[Place.RETRY].oldest] == [soon, soon, later]
    assert snapshot[Place.RETRY].age(NOW - 10**6) == 0.0


def test_what_is_at_rest_is_not_read_again(spool: Spool) -> None:
    for _ in range(500):
        put(spool, "failed")
    view = QueueView(spool, lambda: time.time() + 1)
    assert view.snapshot()[Place.FAILED].count == 500
    # A change behind the view's back: only by reading the directory would it be seen.
    before = (spool.path / "failed").stat()
    put(spool, "failed")
    os.utime(spool.path / "failed", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert view.snapshot()[Place.FAILED].count == 500


def test_two_changes_within_one_tick_of_the_kernels_clock_are_both_seen(spool: Spool) -> None:
    """Before Linux 6.13 they leave the same modification time."""
    put(spool, "new")
    tick = (spool.path / "new").stat().st_mtime_ns
    view = QueueView(spool, lambda: tick / 1e9 + 0.01)
    assert view.snapshot()[Place.NEW].count == 1
    put(spool, "new")
    os.utime(spool.path / "new", ns=(tick, tick))
    assert view.snapshot()[Place.NEW].count == 2


def test_a_request_does_not_wait_for_the_count_of_a_large_directory(spool: Spool) -> None:
    for _ in range(3):
        put(spool, "new")
    view = QueueView(spool, time.time, large=-1)
    assert view.snapshot()[Place.NEW].count in {0, 3}
    until(lambda: view.snapshot()[Place.NEW].count == 3, "the first count")
    put(spool, "new")
    until(lambda: view.snapshot()[Place.NEW].count == 4, "the next one")


def test_a_spool_that_is_gone_is_an_error(spool: Spool) -> None:
    view = QueueView(spool, time.time)
    view.snapshot()
    (spool.path / "retry").rename(spool.path / "moved")
    with pytest.raises(FileNotFoundError):
        view.snapshot()
