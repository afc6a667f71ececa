"""`drop/` itself: its modes, what is counted in it, and what is removed from it."""

import os
import stat
import sys
import time
from pathlib import Path

import pytest
from inbound.dropping import EVE, TEXT, TO, as_root, leave, names
from testbed.capability import with_own_mounts
from testbed.relay import USERNAME, Relay

from mailer.sendmail.drop import hand_over
from mailer.spool import drop, due
from mailer.spool.directory import Spool
from mailer.spool.drop import Kind
from mailer.spool.ids import new_id
from mailer.spool.layout import DROP


def test_the_entries_of_the_drop_directory_are_counted_and_described(spool: Spool) -> None:
    assert drop.summary(spool).describe(0.0) == ""
    leave(spool)
    leave(spool, name=new_id(0) + ".refused")
    (spool.path / DROP / "notes").touch()
    found = drop.summary(spool)
    assert (found.waiting, found.refused, found.odd) == (1, 1, 1)
    said = found.describe(found.since + 7300)
    assert said.startswith(
        "1 left by users, the oldest 2h ago: mailer serve or mailer-send picks them up; 1 refused: "
    )
    assert "; 1 not made by mailer-sendmail: " in said


@as_root
@pytest.mark.security_case(133)
def test_a_users_own_filesystem_among_the_drops_keeps_nothing_back(relay: Relay) -> None:
    """Not even root may look at what a user has mounted there with fusermount."""
    relay.configure({"localUsers": [{"login": str(os.getuid()), "user": USERNAME}]})
    with Spool.open(relay.spool, create=True) as spool:
        drop.prepare(spool, wanted=True)
        hand_over(str(spool.path / DROP), [f"MAIL FROM:<{USERNAME}>", TO], TEXT)
    theirs = relay.spool / DROP / new_id(0)
    theirs.mkdir()
    os.chown(theirs, EVE, EVE)
    mount = Path(__file__).parents[2] / "testbed" / "fuse_mount.py"
    under = (*with_own_mounts(), sys.executable, str(mount), "fuse", str(theirs))
    said = relay.mailer("spool", "ls", under=under)
    assert (said.returncode, "1 left by users" in said.stderr) == (0, True), said.stderr
    assert "1 not made by mailer-sendmail" in said.stderr
    sent = relay.mailer_send("--once", "-v", under=under)
    assert (sent.returncode, "submitted a drop" in sent.stderr) == (0, True), sent.stderr
    assert sorted(path.name for path in (relay.spool / DROP).iterdir()) == [theirs.name]
    assert list((relay.spool / "new").iterdir()) == []


def test_a_drop_directory_that_cannot_be_read_is_reported(spool: Spool) -> None:
    (spool.path / DROP).rmdir()
    (spool.path / DROP).symlink_to("/tmp")
    assert drop.summary(spool).describe(0.0).startswith("it cannot be read (Not a directory)")


def test_only_drops_that_can_be_taken_in_count_as_waiting(spool: Spool) -> None:
    for name in ("notes", ".x"):
        (spool.path / DROP / name).touch()
    (spool.path / DROP / new_id(0)).mkdir()
    assert not due.any_drop(spool.path)
    leave(spool)
    assert due.any_drop(spool.path)


def test_unfinished_files_are_removed_when_they_are_a_day_old(spool: Spool) -> None:
    name = "." + leave(spool)
    (spool.path / DROP / name[1:]).rename(spool.path / DROP / name)
    (spool.path / DROP / ".hand-made").touch()
    drop.sweep(spool, time.time() + 86_000)
    assert len(names(spool)) == 2
    drop.sweep(spool, time.time() + 87_000)
    assert names(spool) == [".hand-made"]
    assert [each.kind for each in drop.entries(spool)] == [Kind.ODD]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_others_pass_to_the_drop_directory_while_it_is_open_and_see_nothing_else(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        assert mode(spool_path) == 0o700
        for _ in range(2):
            drop.prepare(spool, wanted=True)
            assert (mode(spool_path), mode(spool_path / DROP)) == (0o711, 0o3733)
    with Spool.open(spool_path, create=True) as spool:
        assert mode(spool_path) == 0o711
        assert {mode(each) for each in spool_path.iterdir() if each.is_dir()} == {0o700, 0o3733}
        # Without these bits users could remove each other's mail, and none would be taken in.
        (spool_path / DROP).chmod(0o733)
        assert "chmod 3733 drop" in drop.summary(spool).describe(0.0)
        drop.prepare(spool, wanted=True)
        assert (mode(spool_path / DROP), drop.summary(spool).describe(0.0)) == (0o3733, "")
        # What the operator has made narrower stays so.
        (spool_path / DROP).chmod(0o3730)
        drop.prepare(spool, wanted=True)
        assert mode(spool_path / DROP) == 0o3730
        leave(spool)
        drop.prepare(spool, wanted=False)
        assert (mode(spool_path), mode(spool_path / DROP) & 0o777) == (0o700, 0o700)
        assert len(names(spool)) == 1


def test_the_drop_directory_is_not_made_where_no_user_may_use_it(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        drop.prepare(spool, wanted=False)
        assert not (spool_path / DROP).exists()
        assert list(drop.entries(spool)) == []
        assert drop.waiting(spool, 1) == {}
