"""Budgets of several hosts that share a directory: all together send what is allowed, by any clocks."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailer.mail import budget
from mailer.mail.budget import DAY, HOUR, MINUTE, Allowance, Use
from mailer.mail.clock import Reading, rfc3339
from mailer.spool.directory import Spool
from mailer.spool.hosts.epochs import Grounds, Hosts, Why, following
from mailer.spool.layout import STATE
from mailer.spool.state import budgets
from mailer.spool.state.budgets import BudgetFile, Holder, file_name

ACCOUNT = "smtp.example.com:587 as app@example.com"
NOON = 1_800_000_000.0


@dataclass
class Time:
    """The time that all hosts live in, by their wall clocks."""

    now: float = NOON


@pytest.fixture
def spools(tmp_path: Path) -> Iterator[list[Spool]]:
    """The spools of three hosts."""
    with ExitStack() as opened, Hosts.open(tmp_path, create=True) as hosts:
        for name in "abc":
            hosts.advance(following(None, name, Why.JOINED, 0.0, Grounds("ann")))
        yield [opened.enter_context(Spool.open(tmp_path / name, create=True)) for name in "abc"]


def clock_of(number: int, time: Time) -> Callable[[], Reading]:
    """Each host was booted at another time, and its boot clock says another thing."""
    booted = NOON - 1000.0 * (number * 7 + 1)
    return lambda: Reading(time.now, f"boot {number}", time.now - booted)


def file_of(
    spool: Spool, number: int, allowance: Allowance, time: Time, *, trusted: bool = True
) -> BudgetFile:
    return BudgetFile(spool, ACCOUNT, allowance, clock_of(number, time), lambda: True)


def test_hosts_share_an_allowance_to_the_last_unit(spools: list[Spool]) -> None:
    """One after the other they exceed it in no window, and use all of it."""
    time, drawn = Time(), random.Random(4)
    allowance = Allowance(per_minute=30, per_hour=200)
    runs = [(file_of(spool, n, allowance, time), Holder(spool)) for n, spool in enumerate(spools)]
    sent: list[float] = []
    while time.now < NOON + HOUR / 5:
        file, holder = drawn.choice(runs)
        granted, room = file.reserve(holder.name, drawn.randint(1, 5), [], 0)
        now = clock_of(runs.index((file, holder)), time)().uptime
        file.put(holder.name, [(now, granted)], 0)
        sent += [time.now] * granted
        if not granted:
            assert room.at > now
        time.now += drawn.uniform(0.0, 6.0)
    for _, holder in runs:
        holder.close()
    for window, most in ((MINUTE, 30), (HOUR, 200)):
        for moment in sent:
            assert sum(moment - window < each <= moment for each in sent) <= most
    assert len(sent) == 200


def test_hosts_that_reserve_at_one_moment_exceed_it_by_one_step_for_each_but_one(spools: list[Spool]) -> None:
    allowance, most = Allowance(per_day=60), 60
    granted = [0, 0, 0]
    begin = threading.Barrier(len(spools))

    def run(number: int) -> None:
        file, holder = file_of(spools[number], number, allowance, Time()), Holder(spools[number])
        begin.wait()
        while True:
            some, _ = file.reserve(holder.name, allowance.reserve, [], granted[number])
            if not some:
                break
            granted[number] += some

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= sum(granted) <= most + 2 * allowance.reserve


def test_a_run_on_one_host_sees_what_another_host_holds(spools: list[Spool]) -> None:
    time, allowance = Time(), Allowance(per_minute=10)
    a, b = (file_of(spools[n], n, allowance, time) for n in (0, 1))
    holders = [Holder(spools[n]) for n in (0, 1)]
    assert a.reserve(holders[0].name, 6, [], 0)[0] == 6
    assert b.look().free == 4
    assert b.reserve(holders[1].name, 9, [], 0)[0] == 4
    assert a.look().free == 0
    a.put(holders[0].name, [], 0)
    assert b.look().free == 6
    reading = clock_of(1, time)()
    shown = budgets.load(spools[1], ACCOUNT, reading, trusted=True)
    assert shown.within(MINUTE, reading.uptime) == 4
    for holder in holders:
        holder.close()


@pytest.mark.parametrize(
    ("seconds", "trusted", "at", "counts"),
    [
        (30.0, True, True, 5),
        (60.5, True, True, 0),
        # By a clock that nobody trusts it was a moment ago.
        (60.5, False, True, 5),
        (60.5, True, False, 5),
        (-3600.0, True, True, 5),
    ],
)
def test_what_another_host_used_counts_for_its_window(
    seconds: float, *, trusted: bool, at: bool, counts: int
) -> None:
    record = Use(boot="there", uptime=77.0, at=rfc3339(NOON) if at else "", used=((77.0, 5),))
    seen = budget.elsewhere(record, Reading(NOON + seconds, "here", 123_456.0), trusted=trusted)
    assert seen.within(MINUTE, 123_456.0) == counts


@pytest.mark.parametrize(("seconds", "counts"), [(HOUR, 5), (DAY + 1, 0)])
def test_what_a_host_that_is_gone_holds_counts_for_a_day(seconds: float, counts: int) -> None:
    record = Use(boot="there", uptime=77.0, at=rfc3339(NOON), held={"run": 5})
    seen = budget.elsewhere(record, Reading(NOON + seconds, "here", 123_456.0), trusted=True)
    assert seen.within(MINUTE, 123_456.0) == counts


def test_a_warm_up_began_when_the_first_host_began_it() -> None:
    own, other = Use(began=500.0), Use(began=100.0)
    assert budget.together(own, [other, Use()]).began == 100.0
    assert budget.together(Use(), [Use()]).began is None


def test_a_damaged_record_of_another_host_is_ignored(spools: list[Spool]) -> None:
    for number, damaged in ((1, b"{"), (2, b"\xff" * 10)):
        (spools[number].path / STATE / f"{file_name(ACCOUNT)}.json").write_bytes(damaged)
    assert file_of(spools[0], 0, Allowance(per_minute=10), Time()).look().free == 10
