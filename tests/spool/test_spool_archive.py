"""`sent/` forgets what is older than `archiveMaxAge`, and nothing else that anybody has put there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outbound.sending import found, queue
from spools.strategies import NOW, accept
from spools.walk import walk
from testbed.faketime import clock_set, faketime
from testbed.relay import Relay

from mailer.spool.directory import Spool
from mailer.spool.due import days_to_prune
from mailer.spool.layout import DIRECTORY_MODE, day_for
from mailer.spool.run import archive
from mailer.spool.run.archive import prune

DAY = 86_400.0
MIDNIGHT = NOW - NOW % DAY


@pytest.fixture
def spool(tmp_path: Path):
    with Spool.open(tmp_path / "spool", create=True) as opened:
        yield opened


def kept(spool: Spool, day: str, count: int = 1) -> list[Path]:
    """Copies as the runner leaves them."""
    directory = spool.path / "sent" / day
    directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    made = [accept(spool.path) for _ in range(count)]
    return [(spool.path / "new" / name).rename(directory / name) for name in made]


def test_a_day_goes_when_its_last_second_is_too_old_and_not_before(spool: Spool) -> None:
    day = day_for(MIDNIGHT)
    (copy,) = kept(spool, day)
    over = MIDNIGHT + DAY
    for now in (MIDNIGHT, over, over + 2 * DAY - 1):
        assert prune(spool, now, 2 * DAY) == 0
        assert copy.exists()
    assert prune(spool, over + 2 * DAY, 2 * DAY) == 1
    assert list((spool.path / "sent").iterdir()) == []


@pytest.mark.parametrize("max_age", [0.001, DAY / 2, 30 * DAY, 3e9])
@pytest.mark.parametrize("moment", [0.0, 1.0, NOW, 4e9])
def test_at_no_time_does_anything_go_that_is_not_older(spool: Spool, moment: float, max_age: float) -> None:
    days = [day_for(moment + n * DAY) for n in range(-40, 3)]
    for day in days:
        (spool.path / "sent" / day).mkdir(exist_ok=True)
    for day in days_to_prune(spool, moment, max_age):
        assert day_for(moment - max_age) > day


@pytest.mark.parametrize(
    "name",
    ["20261399", "00000000", "2026-11-01", "20261101.old", "²0261101", "20261101x", "0", "keep", "-0261101"],
)
def test_what_is_not_called_like_a_day_stays(spool: Spool, name: str) -> None:
    (copy,) = kept(spool, name)
    assert prune(spool, 4e9, 1.0) == 0
    assert copy.exists()


def test_intruders_stay_and_are_reported_and_do_not_keep_the_others(spool: Spool, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    treasure = outside / ("0" * 26)
    treasure.write_text("treasure")
    linked, second, good = kept(spool, "20200101", 3)
    day = spool.path / "sent" / "20200101"
    link, folder, other = day / ("1" * 26), day / ("2" * 26), day / "notes.txt"
    link.symlink_to(treasure)
    folder.mkdir()
    other.write_text("mine")
    (tmp_path / "backup").hardlink_to(linked)
    (spool.path / "sent" / "20200102").symlink_to(outside)
    (spool.path / "sent" / "20200103").write_text("a file")
    reported: dict[str, str] = {}
    count = prune(spool, NOW, DAY, lambda spot, reason: reported.update({spot.name: reason}))
    assert count == 2
    assert not good.exists()
    assert not second.exists()
    assert treasure.read_text() == "treasure"
    assert {path.name for path in day.iterdir()} == {linked.name, link.name, folder.name, other.name}
    assert reported.keys() == {linked.name, link.name, folder.name}
    assert (spool.path / "sent" / "20200102").is_symlink()
    assert (spool.path / "sent" / "20200103").read_text() == "a file"


def test_a_copy_that_somebody_holds_is_left_for_the_next_time(spool: Spool) -> None:
    from mailer.spool.layout import Place, Spot  # noqa: PLC0415 - only here
    from mailer.spool.locked_message import LockedMessage  # noqa: PLC0415 - only here

    (copy,) = kept(spool, "20200101")
    with LockedMessage.lock(spool, Spot(Place.SENT, copy.name, "20200101")):
        assert prune(spool, NOW, DAY) == 0
    assert prune(spool, NOW, DAY) == 1


def test_a_large_day_goes_in_portions(spool: Spool, monkeypatch) -> None:
    monkeypatch.setattr(archive, "AT_ONCE", 3)
    kept(spool, "20200101", 7)
    assert [prune(spool, NOW, DAY) for _ in range(4)] == [3, 3, 1, 0]
    assert list((spool.path / "sent").iterdir()) == []


def test_a_run_prunes_what_archive_max_age_says_and_why_tells_of_it_until_then(relay: Relay) -> None:
    relay.configure({"security": {"logAllEmails": True}, "archiveMaxAge": "3d"})
    message = queue(relay.spool)
    assert relay.mailer_send("--once", under=faketime("2026-11-30 12:00:00")).returncode == 0
    copy = found(relay.spool, message)
    assert copy is not None
    assert (copy.place, copy.bucket) == ("sent", "20261130")
    assert message in relay.mailer("spool", "ls", "--state", "sent").stdout
    assert "this is the copy that is kept" in relay.mailer("spool", "why", message).stdout
    assert json.loads(relay.mailer("spool", "show", "--json", message).stdout)["state"] == "sent"
    relay.mailer_send("--once", under=faketime("2026-12-03 23:59:50"))
    assert found(relay.spool, message) is not None
    # Copies go when they are old, kept or not any more.
    relay.configure({"security": {"logAllEmails": False}})
    relay.mailer_send("--once", under=faketime("2026-12-04 00:00:01"))
    assert found(relay.spool, message) is None
    assert walk(relay.spool, ("sent",)) == {}


@pytest.mark.fault_row(10)
def test_a_clock_ten_years_ahead_deletes_neither_copies_nor_the_ledger_until_it_is_trusted(
    relay: Relay,
) -> None:
    """Nothing expires on one reading."""
    relay.configure({"security": {"logAllEmails": True}, "archiveMaxAge": "3d", "logRetention": "3d"})
    message = queue(relay.spool)

    def run(moment: str, program: Callable[..., Any] = relay.mailer_send, *words: str) -> set[str]:
        assert program(*words or ["--once"], under=clock_set(moment)).returncode == 0
        return {path.stem for path in (relay.spool / "log").iterdir()} & {"20261130"}

    run("2026-11-30 12:00:00")
    for moment in (
        "2036-11-28 12:01:00",
        "2036-11-28 12:02:00",
        "2026-11-30 12:03:00",
        "2036-11-28 12:04:00",
    ):
        assert run(moment) == {"20261130"}
        assert found(relay.spool, message) is not None
    assert run("2036-11-28 13:00:00", relay.mailer, "spool", "sweep") == {"20261130"}
    run("2036-11-29 12:03:00")
    assert found(relay.spool, message) is not None
    # It stays so, and the operator knows better.
    trusted = relay.mailer("spool", "trust-clock", "--json", under=clock_set("2036-11-29 12:04:00"))
    assert json.loads(trusted.stdout)["doubted"] is True
    assert run("2036-11-29 12:05:00") == set()
    assert found(relay.spool, message) is None


def test_the_sweep_by_hand_prunes_too(relay: Relay) -> None:
    relay.configure({"security": {"logAllEmails": True}, "archiveMaxAge": "1d"})
    queue(relay.spool)
    relay.mailer_send("--once", under=faketime("2026-11-01 12:00:00"))
    swept = relay.mailer("spool", "sweep", "--json", under=faketime("2026-11-05 12:00:00"))
    assert json.loads(swept.stdout) == {"requeued": 0, "removed": 0, "pruned": 1, "dryRun": False}
    assert walk(relay.spool, ("sent",)) == {}
