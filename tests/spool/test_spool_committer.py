"""The committer: many changes with few fsyncs, each told its own result, in the order a power cut demands."""

import asyncio
import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from spools.gate import Gate
from spools.strategies import NOW, accept, envelope
from spools.syncs import Fsyncs
from spools.walk import only, walk

from mailer.spool.changes import DurableMove, NotUndone, make_durable
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage
from mailer.spool.transitions import Move


class Broken(Gate):
    """A change that fails in one of its steps."""

    def __init__(self, step: str, error: Exception, undo: Exception | None = None) -> None:
        super().__init__()
        self.opened.set()
        self._fail = {step: error} | ({"undo": undo} if undo else {})
        self.undone = False

    def sync(self) -> None:
        self._try("sync")

    def move(self) -> None:
        self._try("move")

    def undo(self) -> None:
        self.undone = True
        self._try("undo")

    def _try(self, step: str) -> None:
        if error := self._fail.get(step):
            raise error


@contextmanager
def gathered(spool: Spool) -> Iterator[Committer]:
    """A committer that takes all that is handed in within the block as one group."""
    committer = Committer(spool).start()
    gate = Gate()
    committer.commit(gate)
    assert gate.entered.wait(60)
    try:
        yield committer
    finally:
        gate.opened.set()
        committer.close()


def begin(spool: Spool, message: bytes = b"x") -> Incoming:
    incoming = Incoming.create(spool, received=NOW, user="", peer="", envelope=envelope())
    incoming.write(message)
    incoming.seal(NOW)
    return incoming


def test_a_group_of_messages_costs_one_directory_fsync(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool.open(spool_path, create=True) as spool:
        fsyncs = Fsyncs(monkeypatch)
        with gathered(spool) as committer:
            arriving = [begin(spool) for _ in range(20)]
            futures = [committer.commit(incoming) for incoming in arriving]
        assert [future.result(60) for future in futures] == [None] * 20
        for incoming in arriving:
            incoming.release()
    assert fsyncs.paths.count("new") == 1
    assert len([path for path in fsyncs.paths if path.startswith("tmp/")]) == 20
    assert fsyncs.paths[-1] == "new", "the directory last"
    assert sorted(walk(spool_path)) == sorted(incoming.id for incoming in arriving)


def test_the_lock_is_held_until_the_receiver_gives_it_up(spool_path: Path) -> None:
    """So that no runner is faster than the ledger's accepted line."""
    with Spool.open(spool_path, create=True) as spool:
        committer = Committer(spool).start()
        incoming = begin(spool)
        committer.commit(incoming).result(60)
        spot = Spot(Place.NEW, incoming.id)
        with pytest.raises(Exception, match=spot.path):
            LockedMessage.lock(spool, spot)
        incoming.release()
        LockedMessage.lock(spool, spot).release()
        committer.close()


def test_what_a_group_has_to_say_is_said_together_before_anyone_hears_of_it(spool_path: Path) -> None:
    said: list[object] = []

    @contextmanager
    def together() -> Iterator[None]:
        said.append("(")
        yield
        said.append(")")

    async def commit(spool: Spool) -> None:
        committer, gate = Committer(spool, together).start(), Gate()
        committer.commit(gate)
        assert gate.entered.wait(60)
        heard = asyncio.Event()

        def last(_: Exception | None) -> None:
            said.append("heard")
            heard.set()

        def hear(error: Exception | None) -> None:
            said.append(error and str(error))

        broken = Broken("sync", OSError(errno.EIO, "disk"))
        committer.commit_and_call(broken, hear, lambda: said.append("?"))
        for number in range(3):
            committer.commit_and_call(begin(spool), hear, partial(said.append, number))
        committer.commit_and_call(begin(spool), last)
        gate.opened.set()
        await heard.wait()
        committer.close()

    with Spool.open(spool_path, create=True) as spool:
        asyncio.run(commit(spool))
    assert said == ["(", 0, 1, 2, ")", "[Errno 5] disk", None, None, None, "heard"]


def test_a_waiter_that_raises_is_reported_and_the_others_hear(spool_path: Path) -> None:
    heard: list[object] = []
    reported: list[object] = []

    async def commit(spool: Spool) -> None:
        loop, last = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
        committer, gate = Committer(spool).start(), Gate()
        committer.commit(gate)
        assert gate.entered.wait(60)

        def fail(why: str, *_: object) -> None:
            raise ValueError(why)

        def hear(error: Exception | None) -> None:
            heard.append(error)
            last.set()

        committer.commit_and_call(begin(spool), partial(fail, "answer"), partial(fail, "then"))
        committer.commit_and_call(begin(spool), hear, partial(heard.append, "then"))
        gate.opened.set()
        await last.wait()
        committer.close()

    with Spool.open(spool_path, create=True) as spool:
        asyncio.run(asyncio.wait_for(commit(spool), 60))
    assert heard == ["then", None]
    assert reported == ["then", "answer"]


@pytest.mark.parametrize("renames_are_whole", [True, False])
def test_in_a_mixed_group_every_destination_is_durable_before_any_source(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch, *, renames_are_whole: bool
) -> None:
    """Else a power cut could find a message in neither."""
    names = [accept(spool_path) for _ in range(3)]
    with Spool.open(spool_path) as spool:
        spool.renames_are_whole = renames_are_whole
        locked = [LockedMessage.lock(spool, Spot(Place.NEW, name)) for name in names]
        for one in locked:
            one.move(Move.CLAIM)
        fsyncs = Fsyncs(monkeypatch)
        with gathered(spool) as committer:
            futures = [
                committer.commit(DurableMove(locked[0], Move.FAIL)),
                committer.commit(DurableMove(locked[1], Move.DEFER, "20261122T2200Z")),
                committer.commit(DurableMove(locked[2], Move.HOLD)),
            ]
        for future in futures:
            future.result(60)
        for one in locked:
            one.release()
    order = fsyncs.paths[fsyncs.paths.index("state") + 1 :]
    directories = [path for path in order if len(Path(path).name) < 26]
    destinations = ["failed", "retry", "retry/20261122T2200Z", "hold"]
    assert directories[:4] == destinations
    # new/ too: the claims were not synced, and it may still have the messages.
    assert list(dict.fromkeys(directories[4:])) == ["cur", "new"]


def test_one_that_fails_fails_alone_and_leaves_nothing(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool.open(spool_path, create=True) as spool:
        fsyncs = Fsyncs(monkeypatch)
        with gathered(spool) as committer:
            good, bad = begin(spool), begin(spool)
            fsyncs.failing.add(f"tmp/{bad.id}")
            futures = [committer.commit(good), committer.commit(bad)]
        futures[0].result(60)
        with pytest.raises(OSError, match="Input/output error"):
            futures[1].result(60)
        good.release()
    assert list(walk(spool_path, ("new", "tmp"))) == [good.id]
    assert fsyncs.paths.count(f"tmp/{bad.id}") == 1


def test_a_directory_that_cannot_be_synced_fails_all_that_went_there(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool.open(spool_path, create=True) as spool:
        fsyncs = Fsyncs(monkeypatch)
        fsyncs.failing.add("new")
        with gathered(spool) as committer:
            futures = [committer.commit(begin(spool)) for _ in range(3)]
        for future in futures:
            with pytest.raises(OSError, match="Input/output error"):
                future.result(60)
    assert walk(spool_path, ("new", "tmp")) == {}


def test_what_cannot_be_undone_says_so_with_its_cause(spool_path: Path) -> None:
    cause = OSError(errno.EIO, "fsync")
    with Spool.open(spool_path, create=True) as spool:
        committer = Committer(spool).start()
        with pytest.raises(NotUndone) as caught:
            committer.commit(Broken("move", cause, NotUndone(errno.EROFS, "unlink"))).result(60)
        assert caught.value.__cause__ is cause
        committer.close()


@pytest.mark.parametrize("step", ["sync", "move"])
def test_a_mistake_in_one_change_does_not_end_the_thread_that_all_wait_for(
    spool_path: Path, step: str
) -> None:
    with Spool.open(spool_path, create=True) as spool:
        committer = Committer(spool).start()
        broken = Broken(step, ValueError("no such move"))
        with pytest.raises(ValueError, match="no such move"):
            committer.commit(broken).result(60)
        assert broken.undone
        incoming = begin(spool)
        committer.commit(incoming).result(60)
        incoming.release()
        committer.close()
    assert list(walk(spool_path)) == [incoming.id]


def test_what_was_handed_in_cannot_be_cancelled(spool_path: Path) -> None:
    """A client that leaves cancels its handler; the message must be there, or not, and its lock given up."""
    with Spool.open(spool_path, create=True) as spool:
        with gathered(spool) as committer:
            incoming = begin(spool)
            future = committer.commit(incoming)
            assert not future.cancel()
        future.result(60)
        incoming.release()
    assert list(walk(spool_path)) == [incoming.id]


def test_removals_are_durable_when_the_committer_ends_at_the_latest(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool.open(spool_path, create=True) as spool:
        fsyncs = Fsyncs(monkeypatch)
        committer = Committer(spool).start()
        for _ in range(100):
            committer.sync_soon("cur")
        committer.close()
    assert fsyncs.paths.count("cur") == 1


def test_removals_are_made_durable_without_anything_else_to_do(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    with Spool.open(spool_path, create=True) as spool:
        monkeypatch.setattr(Spool, "sync_directory", lambda self, name: synced.set())
        committer = Committer(spool).start()
        committer.sync_soon("cur")
        assert synced.wait(60)
        committer.close()


def test_one_change_at_once_is_undone_too(spool_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Spool.open(spool_path, create=True) as spool:
        fsyncs = Fsyncs(monkeypatch)
        fsyncs.failing.add("new")
        with pytest.raises(OSError, match="Input/output error"):
            make_durable(spool, begin(spool))
    assert walk(spool_path, ("new", "tmp")) == {}


def test_a_durable_move_that_fails_leaves_the_message_in_one_of_two_places(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = accept(spool_path)
    with Spool.open(spool_path) as spool:
        fsyncs = Fsyncs(monkeypatch)
        fsyncs.failing.add("hold")
        with (
            LockedMessage.lock(spool, Spot(Place.NEW, name)) as locked,
            pytest.raises(OSError, match="Input/output"),
        ):
            make_durable(spool, DurableMove(locked, Move.HOLD))
    assert [found.intact for found in only(spool_path, "hold")] == [True]
    assert "new" not in fsyncs.paths, "the source is not made durable without the destination"
