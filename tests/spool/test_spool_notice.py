"""Bounces exactly once, in the order of `spool/run/notice.py`: death at every system call, and what follows.

The real notifier, with a committer that does each change at once; death as in `spools.crash`.
"""

import asyncio
import itertools
import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from spools.crash import dying_at
from spools.runner import attempt, claims_of, settle
from spools.strategies import NOW, accept
from spools.syncs import Fsyncs
from spools.torn import torn_renames
from spools.walk import Found, in_two_places, untold, walk

from mailer.maillog.events import MailLog
from mailer.send.dsn.notify import NotificationSettings, Notifier
from mailer.spool.changes import Change, make_durable
from mailer.spool.directory import Spool
from mailer.spool.inode_spread import HOME
from mailer.spool.journal import Event
from mailer.spool.layout import Place
from mailer.spool.message_state import Disposition
from mailer.spool.run.claim import Claim
from mailer.spool.run.sweep import clean_tmp
from mailer.spool.scan import names

pytestmark = pytest.mark.exhaustive

MUCH_LATER = 4e9
FATES = ("sent@example.net", "bounced@example.net", "bounced-too@example.net")


class AtOnce:
    """A committer without a thread, so that a death in it is the program's."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def commit(self, change: Change) -> Future[None]:
        make_durable(self._spool, change)
        future: Future[None] = Future()
        future.set_result(None)
        return future


def run(spool: Spool) -> None:
    """Recover, then claim what is new, but not notifications; try, tell, and bring each to rest."""
    claims = claims_of(spool, NOW)
    for place, take in ((Place.CUR, claims.recover), (Place.NEW, claims.claim)):
        for name in [name for name in names(spool, place.value) if not about(spool, name)]:
            if claim := take(name):
                finish(spool, claim)


def about(spool: Spool, name: str) -> bool:
    return any(f.events[0].get("about") for f in walk(spool.path, ("new",)).values() if f.name == name)


def finish(spool: Spool, claim: Claim) -> None:
    if claim.entry.state.disposition(NOW, 3600.0) is Disposition.ATTEMPT:
        attempt(claim, NOW)
    settings = NotificationSettings(lambda sender: sender, "relay.example.com", 0, 432_000)
    log = MailLog(lambda: NOW, lambda *_: None)
    notifier = Notifier(spool, AtOnce(spool), settings, log)  # type: ignore[arg-type]
    state = claim.locked.read(boot="boot-1").state
    asyncio.run(notifier.notify(claim, state, NOW))
    settle(spool, claim, NOW)


def notifications(root: Path, parent: str, *places: str) -> list[Found]:
    return [f for f in walk(root, places).values() if f.intact and f.events[0].get("about") == parent]


def nothing(root: Path, parent: str) -> int:
    return 0


def long_off(root: Path, parent: str) -> int:
    """The machine was off for days, and another run sweeps before the message is claimed."""
    with Spool.open(root) as spool:
        clean_tmp(spool, MUCH_LATER)
    return 0


def claim_forgotten(root: Path, parent: str) -> int:
    """A power cut: the rename into `cur/`, which nobody syncs, never was."""
    if (root / "cur" / parent).exists():
        (root / "cur" / parent).rename(root / "new" / parent)
    return long_off(root, parent)


def delivered(root: Path, parent: str) -> int:
    """What was in `new/` has gone its way meanwhile."""
    found = notifications(root, parent, "new")
    for each in found:
        for place in ("new", "tmp"):
            (root / place / each.name).unlink(missing_ok=True)
    return len(found)


@pytest.mark.parametrize("meanwhile", [nothing, long_off, claim_forgotten, delivered])
@pytest.mark.parametrize("cut", ["whole", "torn"])
def test_whenever_the_runner_dies_there_is_one_notification_in_the_end(
    tmp_path: Path, cut: str, meanwhile
) -> None:
    for die_at in itertools.count():
        root = tmp_path / str(die_at)
        parent = accept(root, b"Subject: x\r\n\r\nx\r\n", *FATES)
        with Spool.open(root) as spool, dying_at(die_at, torn=cut == "torn") as boundary:
            run(spool)
        gone = meanwhile(root, parent)
        with Spool.open(root) as spool:
            run(spool)
        check(root, parent, gone)
        if not boundary.dead:
            break
    assert die_at > 15


def check(root: Path, parent: str, gone: int) -> None:
    found = walk(root)
    assert found[parent].place == "failed"
    assert untold({parent: found[parent]}) == []
    (line,) = [event for event in found[parent].events if event["event"] == "notified"]
    assert line["to"] == list(FATES[1:])
    sent = notifications(root, parent, "new")
    assert len(sent) + gone == 1
    assert [each.name for each in sent] == ([line["notice"]] if sent else [])
    assert all(each.sender == "" and each.recipients == ("app@example.com",) for each in sent)
    assert line["notice"] not in walk(root, ("tmp",))
    with Spool.open(root) as spool:
        clean_tmp(spool, MUCH_LATER)
    assert walk(root, ("tmp",)) == {}
    assert len(notifications(root, parent, "new")) + gone == 1


def test_a_death_in_the_recovery_from_a_death_makes_no_second_one_either(tmp_path: Path) -> None:
    ended = False
    for first in itertools.count():
        for second in range(0, 100, 6):
            root = tmp_path / f"{first}-{second}"
            parent = accept(root, b"Subject: x\r\n\r\nx\r\n", *FATES)
            deaths = []
            for die_at in (first, second, None):
                with Spool.open(root) as spool, dying_at(die_at) as boundary:
                    run(spool)
                deaths.append(boundary.dead)
            check(root, parent, 0)
            ended = not deaths[0]
            if not deaths[1]:
                break
        if ended:
            break


def test_a_journal_that_names_what_is_no_notification_moves_nothing(tmp_path: Path) -> None:
    """A name with a slash, a link under an id: who can write there has better ways, and gains none here."""
    parent = accept(tmp_path, b"x", "deferred@example.net")
    link = "0" * 26
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with Spool.open(tmp_path) as spool:
        (tmp_path / "tmp" / link).symlink_to(secret)
        claim = claims_of(spool, NOW).claim(parent)
        assert claim
        for notice in ("../../etc/passwd", "", link):
            claim.locked.append(Event(at="", event="notified", to=("deferred@example.net",), notice=notice))
        claim.locked.release()
        recovered = claims_of(spool, NOW).recover(parent)
        assert recovered
        recovered.locked.release()
    assert (tmp_path / "tmp" / link).is_symlink()
    assert secret.read_text() == "secret"
    assert set(walk(tmp_path)) == {parent}


def test_a_bounce_and_its_message_have_durable_names_at_every_instant(tmp_path: Path) -> None:
    """Where a power cut may tear a rename; also after a death before the new name, and after it."""
    accept(tmp_path / "whole", b"Subject: x\r\n\r\nx\r\n", *FATES)
    with Spool.open(tmp_path / "whole") as spool, torn_renames(spool) as torn:
        run(spool)
    assert (torn.lost, in_two_places(tmp_path / "whole")) == ([], [])
    for linked in (False, True):
        root = tmp_path / str(linked)
        root.mkdir()
        _, notice = awaited(root)
        if linked:
            os.link(root / "tmp" / notice, root / "new" / notice)
        with Spool.open(root) as spool, torn_renames(spool) as torn:
            torn.forget(root / "new")
            run(spool)
        assert (torn.lost, in_two_places(root)) == ([], [])
        assert not (root / "tmp" / notice).exists()
        assert (root / "new" / notice).exists()


def test_a_recovered_notification_is_durable_before_its_message_moves_on(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that names it, its name in `new/`, and that it is gone from `tmp/`: it is sent once, then."""
    spool_path.mkdir()
    parent, notice = awaited(spool_path)
    for died_after_the_move in (False, True):
        syncs = Fsyncs(monkeypatch)
        with Spool.open(spool_path) as spool:
            claim = claims_of(spool, NOW).recover(parent)
            assert claim
            claim.locked.release()
        assert syncs.paths == ([] if died_after_the_move else [f"cur/{parent}"]) + ["new", "tmp"]
        assert [(spool_path / place / notice).exists() for place in ("new", "tmp")] == [True, False]


def test_a_defect_in_the_writing_costs_the_notification_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    def defective(*_: object) -> bytes:
        raise ValueError("of ours")

    monkeypatch.setattr("mailer.send.dsn.report.compose", defective)
    parent = accept(tmp_path, b"x", *FATES)
    with Spool.open(tmp_path) as spool:
        run(spool)
    found = walk(tmp_path, ("new", "cur", "failed", "tmp"))
    assert {name: file.place for name, file in found.items()} == {parent: "failed"}
    assert untold(found) == [f"{parent} {address}" for address in sorted(FATES[1:])]


@pytest.mark.parametrize("moves", [1, 1000])
def test_a_notification_is_no_litter_while_its_parent_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """The parent moves in the instant between being found and being opened, once or every time."""
    parent, notice = awaited(tmp_path)
    places = itertools.cycle([tmp_path / "hold" / parent, tmp_path / "cur" / parent])
    real, moved = os.open, []

    def move_first(path: Any, flags: int, *rest: Any, **keywords: Any) -> int:
        if str(path).endswith(f"/{parent}") and len(moved) < moves:
            (tmp_path / path).rename(next(places))
            moved.append(path)
        return real(path, flags, *rest, **keywords)

    with Spool.open(tmp_path) as spool:
        monkeypatch.setattr(os, "open", move_first)
        assert clean_tmp(spool, MUCH_LATER) == []
    monkeypatch.undo()
    assert moved
    assert (tmp_path / "tmp" / notice).exists()


def test_a_notification_that_a_power_cut_left_its_first_name_is_no_litter_either(tmp_path: Path) -> None:
    """Where inodes are spread a file is made under another name, which may come back."""
    _, notice = awaited(tmp_path)
    ward = tmp_path / HOME / "ward"
    ward.mkdir(parents=True)
    (ward / notice).hardlink_to(tmp_path / "tmp" / notice)
    with Spool.open(tmp_path) as spool:
        assert clean_tmp(spool, MUCH_LATER) == []
    assert (tmp_path / "tmp" / notice).exists()


def awaited(root: Path) -> tuple[str, str]:
    """Have a runner die when its notification is named in the parent's journal, and not yet in `new/`."""
    for die_at in itertools.count():
        tried = root / "tried" / str(die_at)
        tried.parent.mkdir(parents=True, exist_ok=True)
        parent = accept(tried, b"Subject: x\r\n\r\nx\r\n", *FATES)
        with Spool.open(tried) as spool, dying_at(die_at):
            run(spool)
        found = walk(tried)
        told = [event["notice"] for event in found[parent].events if event["event"] == "notified"]
        if told and (tried / "tmp" / told[0]).exists():
            for each in tried.iterdir():
                each.rename(root / each.name)
            return parent, told[0]
    raise AssertionError("no death left a notification in tmp/")


def test_a_message_that_is_damaged_after_its_runner_died_keeps_no_notification_back(tmp_path: Path) -> None:
    """It is quarantined, and never claimed again; but its journal has promised the notification."""
    seen = 0
    for die_at in itertools.count():
        root = tmp_path / str(die_at)
        parent = accept(root, b"Subject: x\r\n\r\nx\r\n", *FATES)
        with Spool.open(root) as spool, dying_at(die_at) as boundary:
            run(spool)
        if not boundary.dead:
            break
        file = root / "cur" / parent
        if file.exists() and b'"notified"' in file.read_bytes() and not notifications(root, parent, "new"):
            seen += 1
            file.write_bytes(file.read_bytes().replace(b"Subject: x", b"Subject: y"))
            with Spool.open(root) as spool:
                run(spool)
            assert walk(root)[parent].place == "corrupt"
            assert len(notifications(root, parent, "new")) == 1
    assert seen
