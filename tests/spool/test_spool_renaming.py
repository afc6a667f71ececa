"""Where a power cut may tear a rename, no instant of a message's life leaves it without a durable name."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from spools.gate import Gate
from spools.runner import DELAY, HORIZON, claims_of, run_once, settle
from spools.strategies import NOW, accept
from spools.syncs import Fsyncs
from spools.torn import torn_renames
from spools.walk import in_two_places, walk

from mailer.maillog.events import MailLog
from mailer.send.dsn.notify import NotificationSettings, Notifier
from mailer.send.journals import Journals
from mailer.send.settle import Settler
from mailer.spool.background_close import BackgroundClose
from mailer.spool.changes import DurableMove, make_durable
from mailer.spool.checks.fsck import findings
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage
from mailer.spool.run.operate import Operator
from mailer.spool.run.sweep import requeue_due
from mailer.spool.transitions import Move

LATER = NOW + 2 * DELAY
SETTINGS = NotificationSettings(lambda _: "", "relay.example.com", 0, 0)


def put_back(spool: Spool, name: str, *, settled: bool = False, recovered: bool = False) -> None:
    """Args: settled: the claim is durable, and its old name is gone; recovered: then its runner died."""
    claims = claims_of(spool, NOW)
    claim = claims.claim(name)
    assert claim
    if settled or recovered:
        spool.sync_directory(Place.CUR)
        claim.locked.leave()
    if recovered:
        claim.locked.release()
        claim = claims.recover(name)
        assert claim
    settler = Settler(
        Committer(spool),
        BackgroundClose(),
        Notifier(spool, Committer(spool), SETTINGS, MailLog(lambda: NOW, lambda *_: None)),
        horizon=HORIZON,
        archive=False,
    )
    settler.put_back(claim)
    claim.locked.release()
    assert walk(spool.path)[name].place == "new"


def archive(spool: Spool, name: str) -> None:
    claim = claims_of(spool, NOW).claim(name)
    assert claim
    make_durable(spool, DurableMove(claim.locked, Move.ARCHIVE, "20261122"))
    claim.locked.release()


def damage(spool: Spool, name: str) -> None:
    path = spool.path / "new" / name
    path.write_bytes(path.read_bytes().replace(b"mail", b"liam"))
    run_once(spool, NOW)
    assert walk(spool.path)[name].place == "corrupt"


def hold_and_release(spool: Spool, name: str) -> None:
    operator = Operator(spool, "ann")
    operator.hold(Spot(Place.NEW, name), NOW)
    operator.release(Spot(Place.HOLD, name), NOW)


def defer_hold_retry(spool: Spool, name: str) -> None:
    run_once(spool, NOW)
    operator = Operator(spool, "ann")
    operator.hold(Spot(Place.RETRY, name, walk(spool.path)[name].bucket), NOW)
    operator.retry(Spot(Place.HOLD, name), NOW)


def sweep(spool: Spool, name: str) -> None:
    del name
    run_once(spool, NOW)
    assert len(list(requeue_due(spool, claims_of(spool, LATER), LATER, HORIZON))) == 1
    run_once(spool, LATER)


@pytest.mark.parametrize(
    ("address", "live"),
    [
        ("deferred@example.net", lambda spool, _: run_once(spool, NOW)),
        ("bounced@example.net", lambda spool, _: run_once(spool, NOW)),
        ("deferred@example.net", sweep),
        ("deferred@example.net", defer_hold_retry),
        ("sent@example.net", hold_and_release),
        ("sent@example.net", archive),
        ("sent@example.net", damage),
        ("sent@example.net", put_back),
        ("sent@example.net", lambda spool, name: put_back(spool, name, settled=True)),
        ("sent@example.net", lambda spool, name: put_back(spool, name, recovered=True)),
    ],
    ids=[
        "deferred",
        "bounced",
        "swept",
        "retried",
        "released",
        "archived",
        "damaged",
        "put-back",
        "put-back-later",
        "recovered",
    ],
)
def test_a_message_has_a_durable_name_at_every_instant(
    spool_path: Path, address: str, live: Callable[[Spool, str], None]
) -> None:
    name = accept(spool_path, b"mail", address)
    with Spool.open(spool_path) as spool, torn_renames(spool) as torn:
        live(spool, name)
    assert torn.lost == []
    assert torn.moved > 1
    assert in_two_places(spool_path) == []


def test_a_rename_is_seen_to_leave_a_message_without_a_durable_name(spool_path: Path) -> None:
    """The test of the test: where renames are whole nothing else is done, and here it would not do."""
    accept(spool_path, b"mail", "deferred@example.net")
    with Spool.open(spool_path) as spool, torn_renames(spool) as torn:
        spool.renames_are_whole = True
        run_once(spool, NOW)
    assert torn.lost


@pytest.mark.parametrize("renames_are_whole", [True, False])
def test_no_move_replaces_a_file(spool_path: Path, *, renames_are_whole: bool) -> None:
    """Whichever of the two is the message, neither is lost."""
    name = accept(spool_path, b"mail", "sent@example.net")
    with Spool.open(spool_path) as spool, LockedMessage.lock(spool, Spot(Place.NEW, name)) as locked:
        spool.renames_are_whole = renames_are_whole
        there = spool_path / "hold" / name
        there.write_bytes(b"somebody's copy")
        with pytest.raises(FileExistsError):
            locked.move(Move.HOLD)
        assert there.read_bytes() == b"somebody's copy"
        assert (spool_path / "new" / name).read_bytes().endswith(b"\r\n")


def test_a_message_with_two_names_is_claimed_under_both(spool_path: Path) -> None:
    name = accept(spool_path, b"mail", "sent@example.net")
    with Spool.open(spool_path) as spool:
        spool.renames_are_whole = False
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        assert in_two_places(spool_path) == [name]
        assert list(findings(spool, NOW)) == []
        for other in (claims_of(spool, NOW).claim, claims_of(spool, NOW).recover):
            assert other(name) is None
        claim.locked.release()
        assert claims_of(spool, NOW).claim(name) is None, "its runner has died: it is recovered in cur/"
        recovered = claims_of(spool, NOW).recover(name)
        assert recovered
        settle(spool, recovered, NOW)
        recovered.locked.release()


def test_a_journal_that_changes_while_claims_are_made_durable_is_synced_as_soon(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed, changed = (accept(spool_path, b"mail", "sent@example.net") for _ in range(2))

    async def change(spool: Spool, committer: Committer, syncs: Fsyncs) -> list[LockedMessage]:
        busy = Gate()
        committer.commit(busy)
        journals, claims, loop = Journals(committer), claims_of(spool, NOW), asyncio.get_running_loop()
        first, second = (claim.locked for name in (claimed, changed) if (claim := claims.claim(name)))
        journals.taken(first)
        # Timers run in order: when that of the claim has, and its sync waits for the committer.
        loop.call_later(1.0, journals.changed, second)
        loop.call_later(1.1, busy.opened.set)
        while not any(path.endswith(changed) for path in syncs.paths):  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.01)
        return [first, second]

    with Spool.open(spool_path) as spool:
        spool.renames_are_whole = False
        committer = Committer(spool).start()
        for locked in asyncio.run(asyncio.wait_for(change(spool, committer, Fsyncs(monkeypatch)), 60)):
            locked.release()
        committer.close()


def test_a_journal_for_which_no_descriptor_was_left_is_synced_when_there_is_one(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [accept(spool_path, b"mail", "sent@example.net") for _ in range(2)]
    dup, refused = os.dup, list[int]()

    def none_left(fd: int) -> int:
        if len(refused) < 3:
            refused.append(fd)
            raise OSError(errno.EMFILE, "Too many open files")
        return dup(fd)

    async def change(spool: Spool, committer: Committer, syncs: Fsyncs) -> list[LockedMessage]:
        journals, claims = Journals(committer), claims_of(spool, NOW)
        taken = [claim.locked for name in names if (claim := claims.claim(name))]
        for locked in taken:
            journals.changed(locked)
        while not set(names) <= {Path(path).name for path in syncs.paths}:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.01)
        return taken

    monkeypatch.setattr(os, "dup", none_left)
    with Spool.open(spool_path) as spool:
        committer = Committer(spool).start()
        for locked in asyncio.run(asyncio.wait_for(change(spool, committer, Fsyncs(monkeypatch)), 60)):
            locked.release()
        committer.close()
    assert len(refused) == 3


def test_a_journal_in_hand_whose_sync_failed_is_not_synced_again(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has dropped what it could not write: a second sync would say that all is well."""
    name = accept(spool_path, b"mail", "sent@example.net")

    async def change_twice(spool: Spool, committer: Committer, syncs: Fsyncs) -> LockedMessage:
        journals, claim = Journals(committer), claims_of(spool, NOW).claim(name)
        assert claim is not None
        syncs.failing |= {f"new/{name}", f"cur/{name}"}
        journals.changed(claim.locked)
        while claim.locked.lost is None:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.01)
        syncs.failing.clear()
        journals.changed(claim.locked)
        while claim.locked in journals._changed:  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.01)
        await asyncio.wrap_future(committer.answer())
        return claim.locked

    with Spool.open(spool_path) as spool:
        committer = Committer(spool).start()
        syncs = Fsyncs(monkeypatch)
        locked = asyncio.run(asyncio.wait_for(change_twice(spool, committer, syncs), 60))
        committer.close()
        assert len([path for path in syncs.paths if path.endswith(name)]) == 1
        with pytest.raises(OSError, match="Input/output error"):
            locked.sync()
        locked.release()


def test_a_claimed_message_is_soon_in_one_place(spool_path: Path) -> None:
    """When `cur/` is synced, for all that were claimed meanwhile; the order is `Torn`'s to judge."""
    names = [accept(spool_path, b"mail", "sent@example.net") for _ in range(20)]

    async def hold(spool: Spool, committer: Committer) -> list[LockedMessage]:
        journals, claims = Journals(committer), claims_of(spool, NOW)
        taken = [claim.locked for name in names if (claim := claims.claim(name))]
        for locked in taken:
            journals.taken(locked)
        journals.leaving(taken[0])
        while any(locked.also for locked in taken[1:]):  # noqa: ASYNC110 - the loop's timer is what is tested
            await asyncio.sleep(0.01)
        return taken

    with Spool.open(spool_path) as spool, torn_renames(spool) as torn:
        committer = Committer(spool).start()
        taken = asyncio.run(hold(spool, committer))
        committer.close()
        assert in_two_places(spool_path) == names[:1], "of one that moves on, the names are the mover's"
        for locked in taken:
            locked.release()
    assert torn.lost == []
