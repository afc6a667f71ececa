"""Budgets: never more than is allowed, however the provider counts, and hardly less.

With MAILER_PACE_HOURS=48 the provider takes 10,000 a day for two days, 30 a minute, from 3 sessions.
"""

import asyncio
import heapq
import math
import os
import random
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from mailer.config.hops import DomainBudget
from mailer.mail import budget
from mailer.mail.budget import DAY, HOUR, MINUTE, Allowance, Use
from mailer.mail.clock import Clocks, Reading
from mailer.send.budgets import BudgetShare, Spent
from mailer.send.smtp.places import ABANDONED
from mailer.spool.directory import Spool
from mailer.spool.layout import STATE
from mailer.spool.state import small_files
from mailer.spool.state.budgets import BudgetFile, Holder, Unavailable, file_name
from mailer.spool.state.slots import Slot, Slots

NOON = 1_800_000_000.0
SESSIONS = 3
ACCOUNT = "smtp.example.com:587 as app@example.com"


def at(uptime: float, *, wall: float | None = None, boot: str = "one") -> Reading:
    return Reading(NOON + uptime if wall is None else wall, boot, uptime)


def used(*pairs: tuple[float, int], uptime: float = 0.0, **more) -> Use:
    """A record that was written in this boot, and at which time."""
    return budget.brought_forward(Use(used=pairs, **more), at(uptime), trusted=True)


@pytest.mark.parametrize(
    ("allowance", "use", "now", "free", "opens"),
    [
        (Allowance(per_minute=30), used(), 5.0, 30, 5.0),
        (Allowance(per_minute=30), used((1.0, 29), uptime=5), 5.0, 1, 5.0),
        (Allowance(per_minute=30), used((1.0, 29), (3.0, 1), uptime=5), 5.0, 0, 61.0),
        (Allowance(per_minute=30), used((1.0, 29), (3.0, 1), uptime=5), 61.0, 29, 61.0),
        (Allowance(per_minute=30), used((1.0, 29), uptime=5, held={"a": 1}), 5.0, 0, 61.0),
        # What is held may be used at once, and may come back: a minute from now at the latest.
        (Allowance(per_minute=30), used(uptime=5, held={"a": 20, "b": 10}), 5.0, 0, 65.0),
        (Allowance(per_minute=30, per_day=40), used((1.0, 29), (80.0, 11), uptime=90), 90.0, 0, 1 + DAY),
        (Allowance(per_minute=30, per_hour=35), used((1.0, 5), (80.0, 30), uptime=90), 90.0, 0, 1 + HOUR),
        # An allowance that was lowered: so many must be free first that one is.
        (Allowance(per_minute=10), used((1.0, 10), (3.0, 10), (4.0, 1), uptime=5), 5.0, 0, 63.0),
    ],
)
def test_what_is_left_is_that_of_all_limits(
    allowance: Allowance, use: Use, now: float, free: int, opens: float
) -> None:
    room = budget.room(allowance, use, now)
    assert (room.free, room.at) == (free, opens)


@pytest.mark.parametrize(
    ("named", "covered", "passed"),
    [
        ("b\u00fccher.example", ["xn--bcher-kva.example", "B\u00dccher.example"], ["x.b\u00fccher.example"]),
        (".xn--bcher-kva.example", ["x.b\u00fccher.example"], ["b\u00fccher.example", "x.bucher.example"]),
        ("B.example", ["b.example"], ["xb.example"]),
    ],
)
def test_a_budget_covers_a_domain_in_each_of_its_spellings(
    named: str, covered: list[str], passed: list[str]
) -> None:
    limits = DomainBudget(domains=(named,))
    assert [domain for domain in covered + passed if limits.covers(domain)] == covered


def test_a_warm_up_allows_more_each_day_and_then_what_is_usual() -> None:
    allowance = Allowance(per_day=1000, warm_up=(50, 200, 5000))
    use = budget.reserved(allowance, Use(), "run", 50, 100.0)
    assert use.began == 100.0
    use = budget.settled(use, "run", [(100.0, 50)], 0)
    assert (budget.room(allowance, use, 100.0).free, budget.room(allowance, use, 100.0).at) == (
        0,
        100.0 + DAY,
    )
    for day, allowed in enumerate((50, 200, 1000, 1000)):
        assert budget.room(allowance, Use(began=100.0), 101.0 + day * DAY).free == allowed


@pytest.mark.parametrize(
    ("reading", "trusted", "left"),
    [
        (at(1030), True, 0),
        (at(1060.5), True, 10),
        # In one boot the wall clock is nothing: ten years ahead, or back in 1970.
        (at(1030, wall=NOON + 3650 * DAY), True, 0),
        (at(1060.5, wall=0.0), True, 10),
        # Over a reboot at least the new uptime has passed, whatever the wall clock says.
        (at(30, boot="two", wall=NOON + 1010), True, 0),
        (at(61, boot="two", wall=NOON - DAY), True, 10),
        # What was held may have been used until the power went.
        (at(1, boot="two", wall=NOON + 1200), True, 5),
        (at(1, boot="two", wall=NOON + 1200), False, 0),
        (at(61, boot="two", wall=NOON + 1200), False, 10),
        # Where the kernel names no boot, an earlier uptime is of another one.
        (at(30, boot="", wall=NOON), True, 0),
    ],
)
def test_no_clock_that_is_set_and_no_reboot_multiplies_an_allowance(
    reading: Reading,
    trusted: bool,  # noqa: FBT001 - a column of the table
    left: int,
) -> None:
    """At 1,000 s all 10 of a minute were used, half of them by a run that then died with the power."""
    written = used((999.0, 5), uptime=1000, held={"run": 5})
    use = budget.brought_forward(written, reading, trusted=trusted)
    if reading.boot == "one":
        use = budget.settled(use, "run", [(1000.0, 5)], 0)
    assert budget.room(Allowance(per_minute=10), use, reading.uptime).free == left


def test_what_was_written_by_a_clock_that_was_not_believed_is_put_back_by_the_uptime_alone() -> None:
    """Though it is believed now: it may have been years behind then."""
    written = budget.brought_forward(Use(used=((999.0, 10),)), at(1000, wall=NOON - 9 * DAY), trusted=False)
    assert written.at == ""
    for uptime, left in ((30, 0), (61, 10)):
        use = budget.brought_forward(written, at(uptime, boot="two", wall=NOON), trusted=True)
        assert budget.room(Allowance(per_minute=10), use, uptime).free == left


def test_instants_that_are_merged_are_never_counted_for_less_time() -> None:
    """Of 100,000 instants some thousand are kept, and no window counts fewer, or a percent more."""
    drawn = random.Random(1)
    exact = sorted((drawn.uniform(0, DAY), 1) for _ in range(100_000))
    merged = budget.brought_forward(Use(used=tuple(exact)), at(DAY), trusted=True)
    assert len(merged.used) < 2048
    for window in (MINUTE, HOUR, DAY):
        truth = Use(used=tuple(exact)).within(window, DAY)
        assert truth <= merged.within(window, DAY) <= 1.02 * truth


@pytest.fixture
def spool() -> Iterator[Spool]:
    """In memory: what is tried here is not the disk, and thousands of fsyncs would take minutes."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        Spool.open(Path(directory) / "spool", create=True) as made,
    ):
        yield made


@dataclass
class Host:
    """The clocks of one host."""

    uptime: float = 100.0
    boot: str = "one"
    off: float = 0.0
    """By how much the wall clock is wrong."""
    booted: float = 0.0
    """Seconds of the true time at which `uptime` was 0."""

    reboot: float = math.inf
    """When it restarts; after that the wall clock is set every now and then."""

    def wait_until(self, moment: float, drawn: random.Random) -> None:
        self.uptime = moment - self.booted
        if moment > self.reboot:
            self.reboot, self.boot, self.booted, self.uptime = math.inf, "two", moment - 1.0, 1.0
        elif self.boot == "two" and drawn.random() < 0.01:
            self.off = drawn.choice((0.0, 0.0, -3650 * DAY, 3650 * DAY))

    def read(self) -> Reading:
        return Reading(NOON + self.booted + self.uptime + self.off, self.boot, self.uptime)

    @property
    def now(self) -> float:
        return self.booted + self.uptime


@dataclass
class Provider:
    """Counts what it sees, at some instant of each transaction, and throttles."""

    limits: dict[float, int]
    sessions: int
    seen: deque[float] = field(default_factory=deque)
    throttled: int = 0
    _ends: dict[int, float] = field(default_factory=dict)
    """When it hears of the end of each session, by its number."""

    def open(self, number: int, moment: float) -> None:
        self._ends = {known: end for known, end in self._ends.items() if end > moment}
        self.throttled += len(self._ends) >= self.sessions
        self._ends[number] = math.inf

    def close(self, number: int, moment: float) -> None:
        self._ends[number] = moment

    def take(self, moment: float) -> None:
        for window, most in self.limits.items():
            within = 0
            for earlier in reversed(self.seen):
                if earlier <= moment - window:
                    break
                within += 1
            self.throttled += within >= most
        self.seen.append(moment)


class Run:
    """One of those that share a budget and its sessions, in file objects of its own as in a process."""

    def __init__(self, spool: Spool, allowance: Allowance, host: Host) -> None:
        self._spool = spool
        self._file = BudgetFile(spool, ACCOUNT, allowance, host.read, lambda: host.off == 0.0)
        self._slots = Slots(spool, ACCOUNT, SESSIONS)
        self._holder = Holder(spool)
        self._used: list[tuple[float, int]] = []
        self._place: Slot | None = None
        self.session = 0
        """Of its sessions the last, by its number."""

    def end(self, uptime: float) -> None:
        self._used.append((uptime, 1))

    def close(self, *, died: bool) -> bool:
        """Give its place up; tell whether it had one."""
        place, self._place = self._place, None
        if died:
            os.close(self._holder._fd)
            self._holder, self._used = Holder(self._spool), []
        if place:
            place.release(in_order=not died)
        return place is not None

    def begin(self) -> tuple[float | None, float]:
        """Take a place and one of the budget.

        Returns:
            In how many seconds its session begins, or None; and the instant to ask again at, 0: soon.
        """
        place = self._slots.acquire()
        if place is None:
            return None, 0.0
        granted, room = self._file.reserve(self._holder.name, 1, self._used, 0)
        self._used = []
        if not granted:
            place.release(in_order=not place.abandoned)
            return None, room.at
        self._place = place
        return (ABANDONED if place.abandoned else 0.0), 0.0


def simulate(spool: Spool, allowance: Allowance, hours: float, drawn: random.Random) -> Provider:
    """Have 8 runs with more mail than they may send share what is allowed, by a clock that is told the time.

    Each dies about every 150 takes.
    """
    host = Host(reboot=hours * HOUR / 2)
    provider = Provider({MINUTE: allowance.per_minute, DAY: allowance.per_day}, SESSIONS)
    runs = [Run(spool, allowance, host) for _ in range(8)]
    tie = count()
    events: list[tuple[float, int, str, Run]] = [(host.now, next(tie), "take", run) for run in runs]

    def at(moment: float, what: str, run: Run) -> None:
        heapq.heappush(events, (moment, next(tie), what, run))

    while events[0][0] < hours * HOUR:
        moment, number, what, run = heapq.heappop(events)
        host.wait_until(moment, drawn)
        if what == "seen":
            provider.take(moment)
            continue
        if what == "open":
            provider.open(run.session, moment)
            continue
        if what == "end":
            run.end(host.uptime)
        died = drawn.random() < 1 / 150
        if run.close(died=died):
            # The system closes a dead run's connection, and the provider hears of it a little later.
            provider.close(run.session, moment + (drawn.uniform(0.0, ABANDONED) if died else 0.0))
        begins, again = run.begin()
        if begins is None:
            at(max(moment, host.booted + again) + drawn.uniform(0.0, 0.2), "take", run)
            continue
        run.session = number
        begins, lasts = moment + begins, drawn.uniform(0.02, 0.4)
        at(begins, "open", run)
        at(begins + drawn.uniform(0.0, lasts), "seen", run)
        at(begins + lasts, "end", run)
    for run in runs:
        run.close(died=True)
    return provider


@pytest.mark.exhaustive
def test_8_runs_with_kills_use_98_percent_of_an_allowance_and_never_more(spool: Spool) -> None:
    """30 a minute, and as many a day as are to be had within half an hour or, in the long form, 10,000."""
    hours = float(os.environ.get("MAILER_PACE_HOURS", "25"))
    allowance = Allowance(per_minute=30, per_day=10_000 if hours > 25 else 930)
    provider = simulate(spool, allowance, hours, random.Random(2))
    assert provider.throttled == 0, "too many in a minute, in a day, or at once"
    within = sum(moment < 100 + HOUR / 2 for moment in provider.seen)
    assert within >= 0.98 * 30 * 30
    days = hours / 24
    allowed = allowance.per_day * int(days) + min(allowance.per_day, 30 * 60 * 24 * (days % 1))
    assert len(provider.seen) >= 0.98 * allowed


def test_a_record_that_cannot_be_read_counts_as_used_up_and_one_that_is_gone_as_unused(spool: Spool) -> None:
    allowance = Allowance(per_minute=30)
    file = BudgetFile(spool, ACCOUNT, allowance, lambda: at(50), lambda: True)
    path = spool.path / STATE / f"{file_name(ACCOUNT)}.json"
    for damaged in (b"", b"{", b"[]", b'{"used":[[1e999,1]]}', b"\xff"):
        path.write_bytes(damaged)
        assert file.look().free == 0, damaged
    path.unlink()
    assert file.look().free == 30


def test_a_record_whose_name_a_power_cut_took_counts_under_the_name_that_it_was_written_by(
    spool: Spool,
) -> None:
    """Seen on ext4 without a journal: the old inode was gone before the directory had the new one."""
    file = BudgetFile(spool, ACCOUNT, Allowance(per_minute=30), lambda: at(50), lambda: True)
    holder = Holder(spool)
    assert file.reserve(holder.name, 10, [], 0)[0] == 10
    holder.close()
    name = f"{file_name(ACCOUNT)}.json"
    (spool.path / STATE / name).rename(spool.path / STATE / f".{name}.38")
    (spool.path / STATE / f".{name}.39").touch()
    assert file.look().free == 20
    assert small_files.remove(spool, name) is False
    assert file.look().free == 30


def test_a_record_that_the_system_does_not_let_us_read_keeps_mail_back_and_stays(spool: Spool) -> None:
    """A loop of links stands for permissions and bad sectors, which do not keep root from reading."""
    file = BudgetFile(spool, ACCOUNT, Allowance(per_minute=30), lambda: at(50), lambda: True)
    holder = Holder(spool)
    path = spool.path / STATE / f"{file_name(ACCOUNT)}.json"
    path.symlink_to(path)
    assert file.look().free == 0
    for change in (lambda: file.reserve(holder.name, 1, [], 0), lambda: file.put(holder.name, [(1.0, 1)], 0)):
        with pytest.raises(Unavailable, match=str(path)):
            change()
    assert path.is_symlink()
    holder.close()


def test_each_message_reads_why_nothing_may_be_taken(spool: Spool) -> None:
    """Not only the first one, which has looked."""
    file = BudgetFile(spool, ACCOUNT, Allowance(per_day=30), lambda: at(50), lambda: True)
    path = spool.path / STATE / f"{file_name(ACCOUNT)}.json"
    path.symlink_to(path)
    share = BudgetShare(
        file, "smtp.example.com", "Acme", lambda: "run", Clocks(lambda: NOON, lambda: 50.0, "one")
    )

    async def reasons() -> list[str]:
        raised = await asyncio.gather(*[share.acquire(1) for _ in range(2)], return_exceptions=True)
        return [one.reason for one in raised if isinstance(one, Spent)]

    first, second = asyncio.run(reasons())
    assert first == second
    assert f"cannot be read: {path}" in first


@pytest.mark.parametrize("damaged", [False, True])
def test_what_a_dead_run_held_or_damage_keeps_mail_back_for_one_window_and_no_longer(
    spool: Spool, *, damaged: bool
) -> None:
    """All that is allowed at a time was in the hands of a run that was killed; or nobody knows."""
    clock, dead, run = [100.0], Holder(spool), Holder(spool)

    def uptime() -> float:
        """Two readings are never the same, as of a real clock."""
        clock[0] += 2**-20
        return clock[0]

    file = BudgetFile(spool, ACCOUNT, Allowance(per_minute=2), lambda: at(uptime()), lambda: True)
    assert file.reserve(dead.name, 2, [], 0)[0] == 2
    os.close(dead._fd)
    if damaged:
        (spool.path / STATE / f"{file_name(ACCOUNT)}.json").write_bytes(bytes(100))
    share = BudgetShare(
        file, "smtp.example.com", "Acme", lambda: run.name, Clocks(lambda: NOON, uptime, "one")
    )

    async def taken() -> int:
        try:
            return await share.acquire(1)
        except Spent:
            return 0

    assert share.closed_for == 0.0
    assert asyncio.run(taken()) == 0
    assert share.closed_for == pytest.approx(60.0, abs=0.001)
    clock[0] = 160.5
    assert share.closed_for == 0.0
    assert asyncio.run(taken()) == 1
    run.close()


def test_what_a_dead_run_held_counts_as_used_when_others_run_short(spool: Spool) -> None:
    allowance, clock = Allowance(per_minute=10), [100.0]
    file = BudgetFile(spool, ACCOUNT, allowance, lambda: at(clock[0]), lambda: True)
    dead, living, another = Holder(spool), Holder(spool), Holder(spool)
    assert file.reserve(dead.name, 6, [], 0)[0] == 6
    assert file.reserve(living.name, 9, [], 0)[0] == 4
    os.close(dead._fd)
    clock[0] = 150.0
    granted, room = file.reserve(another.name, 1, [], 0)
    assert (granted, room.at) == (0, 210.0)
    file.put(living.name, [], 1)
    assert file.reserve(another.name, 9, [], 0)[0] == 3
    assert not (spool.path / STATE / dead.name).exists()
    living.close()
    another.close()
