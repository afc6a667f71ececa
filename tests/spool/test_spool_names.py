"""A file with two names of ours: what a power cut brought back is recognised, and resolved as the journal
says.

Left alone, as a file with a foreign link is, mail that got its 250 was stuck for ever on ext4 without a
journal.
"""

import os
from pathlib import Path

import pytest
from spools.runner import DELAY, HORIZON, claims_of, run_once
from spools.strategies import NOW, accept
from spools.walk import walk

from mailer.spool.checks.fsck import findings
from mailer.spool.directory import Spool
from mailer.spool.layout import Place, Spot, bucket_for
from mailer.spool.locked_message import LockedMessage
from mailer.spool.run.operate import Operator
from mailer.spool.run.sweep import STALE, clean_tmp, requeue_due

LATER = NOW + 2 * DELAY


def again(root: Path, name: str, old: str, place: str) -> None:
    """Bring a name back that the file had, as a power cut does where its directory was not synced."""
    (path,) = root.glob(f"{place}/{name}")
    target = root / old
    target.parent.mkdir(exist_ok=True)
    os.link(path, target / name if target.is_dir() else target)


def drain(root: Path) -> list[str]:
    """Run as often as a timer would; return who was mailed."""
    mailed: list[str] = []
    with Spool.open(root) as spool:
        for now in (LATER, LATER + 2 * DELAY):
            list(requeue_due(spool, claims_of(spool, now), now, HORIZON))
            run_once(spool, now, lambda _, address: mailed.append(address))
            clean_tmp(spool, now)
    return mailed


def names_left(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("01*") if path.is_file()]


@pytest.mark.parametrize(
    "old", ["tmp", "cur", f"retry/{bucket_for(NOW)}", "hold", "failed", "state/nursery/ward"]
)
def test_accepted_mail_with_a_second_name_is_sent_once_and_leaves_no_name(spool_path: Path, old: str) -> None:
    name = accept(spool_path, b"x", "sent@example.net")
    (spool_path / old).mkdir(parents=True, exist_ok=True)
    again(spool_path, name, old, "new")
    assert drain(spool_path) == ["sent@example.net"]
    assert names_left(spool_path) == []


@pytest.mark.parametrize("old", ["tmp", "new", "cur"])
def test_deferred_mail_with_a_second_name_waits_until_it_is_due(spool_path: Path, old: str) -> None:
    name = accept(spool_path, b"x", "deferred@example.net")
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        again(spool_path, name, old, "retry/*")
        mailed: list[str] = []
        run_once(spool, NOW + 1, lambda _, address: mailed.append(address))
        clean_tmp(spool, NOW + 1)
    assert mailed == []
    assert [found.place for found in walk(spool_path).values()] == ["retry"]
    assert drain(spool_path) == ["deferred@example.net"] * 2
    assert len(names_left(spool_path)) == 1


@pytest.mark.parametrize("old", ["new", "cur"])
@pytest.mark.parametrize("place", ["failed", "hold"])
def test_mail_at_rest_with_a_second_name_comes_to_rest_again(spool_path: Path, place: str, old: str) -> None:
    name = accept(spool_path, b"x", "bounced@example.net")
    with Spool.open(spool_path) as spool:
        if place == "failed":
            run_once(spool, NOW)
        else:
            Operator(spool, "ann").hold(Spot(Place.NEW, name), NOW)
    again(spool_path, name, old, place)
    assert drain(spool_path) == []
    assert names_left(spool_path) == [f"{place}/{name}"]


@pytest.mark.parametrize("act", ["rm", "hold", "retry"])
def test_the_operator_acts_on_all_names_of_a_message(spool_path: Path, act: str) -> None:
    name = accept(spool_path, b"x", "sent@example.net")
    again(spool_path, name, "tmp", "new")
    spot = Spot(Place.NEW, name)
    with Spool.open(spool_path) as spool:
        operator = Operator(spool, "ann")
        match act:
            case "rm":
                operator.remove(spot)
            case "hold":
                operator.hold(spot, NOW)
            case "retry":
                operator.retry(spot, NOW)
    expected = {"rm": [], "hold": [f"hold/{name}"], "retry": [f"new/{name}", f"tmp/{name}"]}[act]
    assert sorted(names_left(spool_path)) == expected
    assert drain(spool_path) == (["sent@example.net"] if act == "retry" else [])


def test_what_came_back_to_tmp_is_no_mail_that_waits_a_day(spool_path: Path) -> None:
    name = accept(spool_path)
    again(spool_path, name, "tmp", "new")
    with Spool.open(spool_path) as spool:
        assert clean_tmp(spool, NOW - STALE) == [name]
    assert names_left(spool_path) == [f"new/{name}"]


def test_fsck_tells_a_second_name_of_ours_from_one_outside(tmp_path: Path, spool_path: Path) -> None:
    name = accept(spool_path)
    again(spool_path, name, "tmp", "new")
    with Spool.open(spool_path) as spool:
        told = {finding.path: finding.problem for finding in findings(spool, NOW)}
        assert told[f"new/{name}"].startswith(f"is also tmp/{name}, as a power cut may leave it")
        os.link(spool_path / "new" / name, tmp_path / "elsewhere")
        told = {finding.path: finding.problem for finding in findings(spool, NOW)}
        assert "3 links: a path outside of the spool" in told[f"new/{name}"]


@pytest.mark.parametrize("other", ["state", "new"])
def test_a_name_that_came_back_to_another_files_inode_is_removed_and_the_file_stays(
    spool_path: Path, other: str
) -> None:
    """Ext4 without a journal gives the inode of a removed message to the next file."""
    stale = accept(spool_path)
    theirs = accept(spool_path, b"x", "sent@example.net") if other == "new" else "last-run.json"
    (spool_path / "state" / "last-run.json").write_text("{}")
    (spool_path / "new" / stale).unlink()
    os.link(spool_path / other / theirs, spool_path / "new" / stale)
    assert drain(spool_path) == (["sent@example.net"] if other == "new" else [])
    assert names_left(spool_path) == []
    assert (spool_path / "state" / "last-run.json").read_text() == "{}"


@pytest.mark.parametrize("elsewhere", ["once/drop-4711", "state/last-run.json", f"new/{'0' * 26}"])
def test_mail_whose_inode_was_a_removed_files_is_sent_and_that_name_goes(
    spool_path: Path, elsewhere: str
) -> None:
    """The reverse: the other file's name came back, and what it names is the message."""
    name = accept(spool_path, b"x", "sent@example.net")
    (spool_path / elsewhere).parent.mkdir(exist_ok=True)
    (spool_path / elsewhere).hardlink_to(spool_path / "new" / name)
    with Spool.open(spool_path) as spool:
        told = [each.problem for each in findings(spool, NOW) if each.path == f"new/{name}"]
    assert [elsewhere in each and "brought back" in each for each in told] == [True]
    assert drain(spool_path) == ["sent@example.net"]
    assert not (spool_path / elsewhere).exists()


def test_damaged_mail_with_a_foreign_link_keeps_its_name(tmp_path: Path, spool_path: Path) -> None:
    """No other file of the spool has its inode, so it is the message: to delete its name would lose it."""
    name = accept(spool_path)
    path = spool_path / "new" / name
    path.write_bytes(path.read_bytes().replace(b"Spool-Id: 0", b"Spool-Id: 1"))
    os.link(path, tmp_path / "backup")
    with Spool.open(spool_path) as spool, pytest.raises(Exception, match="2 links: a path outside"):
        LockedMessage.lock(spool, Spot(Place.NEW, name))
    assert path.exists()


def test_a_name_outside_of_the_spool_beside_one_of_ours_is_still_refused(
    tmp_path: Path, spool_path: Path
) -> None:
    name = accept(spool_path)
    again(spool_path, name, "tmp", "new")
    os.link(spool_path / "new" / name, tmp_path / "elsewhere")
    with Spool.open(spool_path) as spool, pytest.raises(Exception, match="3 links: a path outside"):
        LockedMessage.lock(spool, Spot(Place.NEW, name))
