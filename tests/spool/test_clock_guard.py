"""The clock guard: which readings of the wall clock are ones to give up and to delete by."""

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from outbound.sending import queue

from mailer.mail import clock
from mailer.mail.clock import Clocks, Reading
from mailer.spool.directory import Spool
from mailer.spool.state import clock_guard, last_run
from mailer.spool.state.clock_guard import ClockGuard, Doubt, Mark, believed, describe, judge, trust
from mailer.spool.state.last_run import LastRun

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
NOW = 1_800_000_000.0
YEARS = 3650 * DAY


@dataclass
class Host:
    """A host's clocks, turned by hand."""

    wall: float = NOW
    uptime: float = 5 * DAY
    boot: str = "first"
    synchronized: bool = False
    asleep: float = 0.0
    """Of the uptime."""

    def sleeps(self, seconds: float) -> "Host":
        self.asleep += seconds
        return self.passes(seconds)

    def passes(self, seconds: float) -> "Host":
        self.wall += seconds
        self.uptime += seconds
        return self

    def is_set(self, seconds: float) -> "Host":
        self.wall += seconds
        return self

    def boots(self, off: float) -> "Host":
        self.wall += off
        self.uptime, self.boot, self.asleep = 30.0, self.boot + "+", 0.0
        return self

    @property
    def clocks(self) -> Clocks:
        return Clocks(
            wall=lambda: self.wall,
            uptime=lambda: self.uptime,
            boot=self.boot,
            synchronized=lambda: self.synchronized,
            awake=lambda: self.uptime - self.asleep,
        )

    def read(self) -> Reading:
        return self.clocks.read()


class Known:
    """What one program after another knows, each by one reading."""

    def __init__(self, host: Host, *signs: float) -> None:
        self.host = host
        self.signs = list(signs)
        self.mark: Mark | None = None

    def look(self) -> bool:
        signs = [sign for sign in self.signs if sign <= self.host.wall]
        self.mark = judge(self.mark, self.host.read(), lambda: signs, synchronized=self.host.synchronized)
        return self.mark.doubt is None


@pytest.mark.parametrize("jump", [HOUR, 6 * DAY, 30 * DAY, 89 * DAY, YEARS, -HOUR, -365 * DAY])
@pytest.mark.parametrize("between", [60.0, 150.0, DAY])
def test_a_clock_that_is_set_is_doubted_however_often_it_is_read_and_right_again_at_once(
    jump: float, between: float
) -> None:
    known = Known(Host())
    assert known.look()
    known.host.passes(MINUTE).is_set(jump)
    readings = []
    for _ in range(5):
        readings.append(known.look())
        known.host.passes(between)
    assert readings == [False] * 5
    known.host.is_set(-jump)
    assert known.look()
    assert known.mark is not None
    assert known.mark.doubt is None


@pytest.mark.parametrize("correction", [-300.0, -1.0, 0.0, 1.0, 37.0, 300.0])
@pytest.mark.parametrize("passed", [MINUTE, DAY, 400 * DAY])
def test_suspended_time_and_small_corrections_are_no_leap(correction: float, passed: float) -> None:
    known = Known(Host())
    for _ in range(3):
        assert known.look()
        known.host.passes(passed)
    known.host.is_set(correction)
    assert known.look()


def test_small_steps_do_not_add_up_to_a_leap_that_is_believed() -> None:
    """The reference of a boot is its first reading: a clock that is set each minute goes nowhere unseen."""
    known = Known(Host())
    readings = []
    for _ in range(30):
        readings.append(known.look())
        known.host.passes(MINUTE).is_set(5 * MINUTE)
    assert readings[:3] == [True] * 3
    assert not any(readings[3:])


@pytest.mark.parametrize(
    ("synchronized", "set_by", "off", "proof"),
    [
        (True, 30 * DAY, 0.0, HOUR),
        (False, 30 * DAY, 0.0, 7 * DAY),
        (True, 0.0, 30 * DAY, HOUR),
        (False, 0.0, 30 * DAY, DAY),
        (False, 0.0, YEARS, 7 * DAY),
    ],
)
def test_a_new_time_is_believed_once_it_has_gone_on_evenly_for_as_long_as_is_written(
    *, synchronized: bool, set_by: float, off: float, proof: float
) -> None:
    """A host that was off for a month has no mail stuck for ever, and neither has one that was set right."""
    known = Known(Host())
    assert known.look()
    _ = known.host.is_set(set_by) if set_by else known.host.boots(off=off)
    known.host.synchronized = synchronized
    assert not known.look()
    known.host.passes(proof - 1)
    assert not known.look()
    known.host.passes(2)
    assert known.look()
    known.host.passes(DAY)
    assert known.look()


def test_a_host_that_sleeps_proves_nothing_meanwhile() -> None:
    """A laptop whose clock was wrong when its lid was closed for a fortnight had no time to be set right."""
    known = Known(Host())
    known.look()
    known.host.is_set(30 * DAY)
    known.look()
    known.host.sleeps(14 * DAY)
    assert not known.look()
    known.host.passes(7 * DAY - 1)
    assert not known.look()
    known.host.passes(2)
    assert known.look()


def test_a_machine_that_is_paused_each_night_needs_a_time_server_for_an_hour_a_day() -> None:
    """Its own clocks show the same as those of one that is set wrong each night."""
    known = Known(Host(synchronized=True))
    assert known.look()
    for _ in range(3):
        known.host.is_set(10 * HOUR)
        assert not known.look()
        known.host.passes(HOUR + MINUTE)
        assert known.look()
        known.host.passes(13 * HOUR)
        assert known.look()


def test_proof_begins_anew_when_the_clock_is_set_again_and_outlives_another_boot() -> None:
    known = Known(Host())
    known.look()
    known.host.boots(off=30 * DAY)
    for step in (0.0, 20 * HOUR):
        assert not known.look(), step
        known.host.passes(step)
    known.look()
    known.host.boots(off=HOUR)
    assert not known.look()
    known.host.passes(5 * HOUR)
    assert known.look(), "20 hours before the boot, and 5 after it"
    known.host.is_set(40 * DAY)
    known.look()
    known.host.passes(6 * DAY).is_set(40 * DAY)
    assert not known.look()
    known.host.passes(6 * DAY)
    assert not known.look()


@pytest.mark.parametrize(
    ("off", "signs", "right"),
    [
        (HOUR, [], True),
        (40 * HOUR, [], True),
        (3 * DAY, [], False),
        (30 * DAY, [], False),
        (YEARS, [], False),
        (-HOUR, [], False),
        (-365 * DAY, [], False),
        (6 * DAY, [1.5 * DAY, 3 * DAY, 4.5 * DAY], True),
        (6 * DAY, [1.5 * DAY, 4.5 * DAY], False),
        (30 * DAY, [29.9 * DAY], False),
        (30 * DAY, [float(day) * DAY for day in range(1, 30)], True),
    ],
)
def test_after_a_boot_the_spool_tells_whether_the_host_was_at_work_meanwhile(
    off: float, signs: list[float], *, right: bool
) -> None:
    known = Known(Host(), *(NOW + sign for sign in signs))
    assert known.look()
    known.host.boots(off)
    assert known.look() is right


def test_a_battery_that_died_is_doubted_until_the_time_server_is_heard() -> None:
    known = Known(Host())
    known.look()
    known.host.boots(off=-365 * DAY)
    assert not known.look()
    known.host.passes(20.0).is_set(365 * DAY)
    assert known.look()


@pytest.mark.parametrize(
    ("signs", "uptime", "right"),
    [
        ([], HOUR, True),
        ([-HOUR], HOUR, True),
        ([-1.5 * DAY, -3 * DAY], HOUR, True),
        ([-2.5 * DAY], HOUR, False),
        ([-150.0, -YEARS], HOUR, False),
        ([-1.2 * DAY, -2.2 * DAY, -30 * DAY], 1.6 * DAY, True),
        ([-1.2 * DAY, -2.2 * DAY, -YEARS], 1.6 * DAY, False),
        ([-1.5 * DAY, -YEARS], HOUR, False),
        ([-HOUR, -DAY, YEARS], HOUR, True),
        ([YEARS, YEARS + HOUR, 0.0], HOUR, False),
        ([YEARS, -2.0, -2.0, -3.0, -4.0], 1.0, False),
        ([YEARS, -2.0, -2.0, -3.0, -DAY], 1.0, True),
    ],
)
def test_without_a_reading_from_before_the_signs_of_life_are_the_evidence(
    signs: list[float], uptime: float, *, right: bool
) -> None:
    moments = [NOW + sign for sign in signs]
    mark = judge(None, Reading(NOW, "first", uptime), lambda: moments, synchronized=False)
    assert (mark.doubt is None) is right


def test_a_doubt_is_not_ended_by_what_was_written_under_it() -> None:
    """A clock that is a year behind after a power cut: most signs are soon of the run that doubts it."""
    host = Host(wall=NOW - 365 * DAY, uptime=30.0)
    signs = [NOW, NOW, NOW, host.wall]
    mark = judge(None, host.read(), lambda: signs, synchronized=False)
    assert mark.doubt is not None
    signs += [host.wall] * 10
    for restart in (False, True):
        host.passes(MINUTE)
        if restart:
            host.boots(MINUTE)
        mark = judge(mark, host.read(), lambda: signs, synchronized=False)
        assert mark.doubt is not None
    host.passes(MINUTE).is_set(365 * DAY)
    mark = judge(mark, host.read(), lambda: signs, synchronized=False)
    assert mark == believed(host.read())


def test_a_doubt_says_what_is_wrong_until_when_and_what_to_do() -> None:
    doubt = Doubt(at=clock.rfc3339(NOW), boot="b", uptime=1.0, off=30 * DAY, evenly=600.0, set=True)
    said = describe(doubt)
    for words in ("2027-01-15", "set 30d ahead", "7d (1h if a time server", "so far 10m", "trust-clock"):
        assert words in said
    assert "30d ahead of the last sign of life" in describe(replace_doubt(doubt, set=False))
    assert "set 30d back" in describe(replace_doubt(doubt, off=-30 * DAY))


def replace_doubt(doubt: Doubt, **changed: object) -> Doubt:
    from msgspec.structs import replace as changing  # noqa: PLC0415 - only here

    return changing(doubt, **changed)


@pytest.fixture
def spool(tmp_path: Path):
    with Spool.open(tmp_path / "spool", create=True) as opened:
        yield opened


def test_programs_share_what_they_know_and_each_change_is_logged_once(spool: Spool) -> None:
    host = Host(wall=_now())
    told: list[Doubt | None] = []
    for act, trusted in (
        (lambda: host.passes(MINUTE), True),
        (lambda: host.is_set(30 * DAY), False),
        (lambda: host.passes(150), False),
        (lambda: host.passes(150), False),
        (lambda: host.is_set(-30 * DAY), True),
        (lambda: host.passes(150), True),
    ):
        act()
        guard = ClockGuard(spool, host.clocks, told.append)
        assert guard.trusts() is trusted
    assert [doubt is not None for doubt in told] == [True, False]


def test_a_program_that_runs_on_sees_a_leap_at_once_and_its_end_too(spool: Spool) -> None:
    host = Host(wall=_now())
    guard = ClockGuard(spool, host.clocks)
    for jump in (YEARS, -365 * DAY, 6 * DAY):
        assert guard.trusts()
        host.is_set(jump)
        assert not guard.trusts(), "before anybody has looked at the spool again"
        assert guard.observe() is not None
        assert guard.observe() is not None
        assert not guard.trusts()
        host.is_set(-jump)
        assert guard.trusts()
        assert guard.observe() is None


def test_the_operators_word_reaches_a_program_that_runs_on(spool: Spool) -> None:
    host = Host(wall=_now())
    guard = ClockGuard(spool, host.clocks)
    assert trust(spool, host.clocks) is None
    host.is_set(30 * DAY)
    assert guard.observe() is not None
    assert trust(spool, host.clocks) is not None
    assert guard.observe() is None
    assert guard.trusts()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"at":"x"}', b'{"boot":1}', b"\xff"])
def test_a_damaged_file_is_none_and_the_last_run_vouches(spool: Spool, content: bytes) -> None:
    (spool.path / "state" / clock_guard.NAME).write_bytes(content)
    wall = _now()
    at = clock.rfc3339(wall - HOUR)
    last_run.write(spool, LastRun(at=at, began=at, seconds=0.0, mode="once"))
    assert ClockGuard(spool, Host(wall=wall).clocks).trusts()
    (spool.path / "state" / clock_guard.NAME).write_bytes(content)
    assert not ClockGuard(spool, Host(wall=wall + 6 * DAY).clocks).trusts()


def test_what_cannot_be_written_down_is_known_all_the_same(spool: Spool) -> None:
    host = Host(wall=_now())
    (spool.path / "state" / clock_guard.NAME).mkdir()
    guard = ClockGuard(spool, host.clocks)
    assert guard.trusts()
    host.is_set(6 * DAY)
    assert guard.observe() is not None
    host.passes(8 * DAY)
    assert guard.observe() is None


@pytest.mark.parametrize(
    ("told", "boot", "since"),
    [
        (-3 * DAY, "first", -3 * DAY),
        (YEARS, "first", -HOUR),
        (-400 * DAY, "first", -HOUR),
        (YEARS, "earlier", 0.0),
        (-3 * DAY, "earlier", -3 * DAY),
        (1000.0 - NOW, "earlier", 0.0),
    ],
)
def test_the_age_of_what_came_by_a_wrong_clock_is_counted_from_when_it_came(
    spool: Spool, told: float, boot: str, since: float
) -> None:
    """Where the boot clock of then says nothing, as far as can be known: 1970 cannot be."""
    host = Host()
    guard = ClockGuard(spool, host.clocks)
    uptime = host.uptime - (-told if told == since else HOUR)
    assert guard.since(NOW + told, boot, uptime) == NOW + since


@pytest.mark.parametrize("place", ["failed", "hold", "new", "log"])
def test_ids_and_days_of_the_ledger_vouch_where_no_state_is_left(spool: Spool, place: str) -> None:
    """The first wrong run after `rm -r state` must not delete today's ledger."""
    wall = _now()
    if place == "log":
        (spool.path / "log" / f"{datetime.fromtimestamp(wall, UTC):%Y%m%d}.jsonl").touch()
    else:
        message = queue(spool.path, received=wall - HOUR)
        (spool.path / "new" / message).rename(spool.path / place / message)
    host = Host(wall=wall)
    assert ClockGuard(spool, replace(host).clocks).trusts()
    (spool.path / "state" / clock_guard.NAME).unlink()
    host.is_set(6 * DAY)
    # Whatever was written since has the wrong time.
    for path in (*spool.path.iterdir(), *(spool.path / "log").iterdir()):
        os.utime(path, (host.wall, host.wall))
    assert not ClockGuard(spool, host.clocks).trusts()


def _now() -> float:
    import time  # noqa: PLC0415 - the spool's own files have this time

    return time.time()


def test_a_mark_is_small_and_readable(spool: Spool) -> None:
    host = Host(wall=_now())
    ClockGuard(spool, host.clocks)
    mark = clock_guard.read(spool)
    assert mark == believed(host.read())
