"""Budgets: never more than is allowed, however the provider counts, and hardly less.

With MAILER_PACE_HOURS=48 the provider takes 10,000 a day for two days.
"""

import asyncio
import heapq
import os
import random
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from mailer.config.pace import DomainBudget
from mailer.mail import budget
from mailer.mail.budget import DAY, HOUR, MINUTE, Terms, Use
from mailer.mail.clock import Clocks, Reading
from mailer.send.budgets import Purse, Spent
from mailer.spool.budgets import BudgetFile, Holder, Unavailable, file_name
from mailer.spool.layout import STATE, Spool

NOON = 1_800_000_000.0
ACCOUNT = "smtp.example.com:587 as app@example.com"


def at(uptime: float, *, wall: float | None = None, boot: str = "one") -> Reading:
    return Reading(NOON + uptime if wall is None else wall, boot, uptime)


def used(*pairs: tuple[float, int], uptime: float = 0.0, **more) -> Use:
    """A record that was written in this boot, and at which time."""
    return budget.brought_forward(Use(used=pairs, **more), at(uptime), trusted=True)


@pytest.mark.parametrize(
    ("terms", "use", "now", "free", "opens"),
    [
        (Terms(per_minute=30), used(), 5.0, 30, 5.0),
        (Terms(per_minute=30), used((1.0, 29), uptime=5), 5.0, 1, 5.0),
        (Terms(per_minute=30), used((1.0, 29), (3.0, 1), uptime=5), 5.0, 0, 61.0),
        (Terms(per_minute=30), used((1.0, 29), (3.0, 1), uptime=5), 61.0, 29, 61.0),
        (Terms(per_minute=30), used((1.0, 29), uptime=5, held={"a": 1}), 5.0, 0, 61.0),
        # What is held may be used at once, and may come back: a minute from now at the latest.
        (Terms(per_minute=30), used(uptime=5, held={"a": 20, "b": 10}), 5.0, 0, 65.0),
        (Terms(per_minute=30, per_day=40), used((1.0, 29), (80.0, 11), uptime=90), 90.0, 0, 1 + DAY),
        (Terms(per_minute=30, per_hour=35), used((1.0, 5), (80.0, 30), uptime=90), 90.0, 0, 1 + HOUR),
        # An allowance that was lowered: so many must be free first that one is.
        (Terms(per_minute=10), used((1.0, 10), (3.0, 10), (4.0, 1), uptime=5), 5.0, 0, 63.0),
    ],
)
def test_what_is_left_is_that_of_all_limits(
    terms: Terms, use: Use, now: float, free: int, opens: float
) -> None:
    room = budget.room(terms, use, now)
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
    terms = Terms(per_day=1000, warm_up=(50, 200, 5000))
    use = budget.reserved(terms, Use(), "run", 50, 100.0)
    assert use.began == 100.0
    use = budget.settled(use, "run", [(100.0, 50)], 0)
    assert (budget.room(terms, use, 100.0).free, budget.room(terms, use, 100.0).at) == (0, 100.0 + DAY)
    for day, allowed in enumerate((50, 200, 1000, 1000)):
        assert budget.room(terms, Use(began=100.0), 101.0 + day * DAY).free == allowed


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
    assert budget.room(Terms(per_minute=10), use, reading.uptime).free == left


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

    def read(self) -> Reading:
        return Reading(NOON + self.booted + self.uptime + self.off, self.boot, self.uptime)

    @property
    def now(self) -> float:
        return self.booted + self.uptime


@dataclass
class Provider:
    """Counts what it sees, at some instant of each transaction, and throttles."""

    limits: dict[float, int]
    seen: deque[float] = field(default_factory=deque)
    throttled: int = 0

    def take(self, moment: float) -> None:
        for window, most in self.limits.items():
            within = 0
            for earlier in reversed(self.seen):
                if earlier <= moment - window:
                    break
                within += 1
            self.throttled += within >= most
        self.seen.append(moment)


def simulate(spool: Spool, terms: Terms, hours: float, drawn: random.Random) -> Provider:
    """Have 8 runs with more mail than they may send share a budget, by a clock that is told the time.

    Each dies about every 150 takes; the wall clock is set every now and then, and once the host restarts.
    """
    host = Host()
    provider = Provider({MINUTE: terms.per_minute, DAY: terms.per_day})
    # Each in its own file object, as in processes of their own.
    files = [BudgetFile(spool, ACCOUNT, terms, host.read, lambda: host.off == 0.0) for _ in range(8)]
    holders = [Holder(spool) for _ in files]
    pending: list[list[tuple[float, int]]] = [[] for _ in files]
    tie = count()
    events: list[tuple[float, int, str, int]] = [(host.now, next(tie), "take", run) for run in range(8)]
    reboot = hours * HOUR / 2
    while events[0][0] < hours * HOUR:
        moment, _, what, run = heapq.heappop(events)
        host.uptime = moment - host.booted
        if what == "seen":
            provider.take(moment)
            continue
        if drawn.random() < 0.01:
            host.off = drawn.choice((0.0, 0.0, -3650 * DAY, 3650 * DAY))
        if moment > reboot:
            reboot, host.boot, host.booted, host.uptime = float("inf"), "two", moment - 1.0, 1.0
        if drawn.random() < 1 / 150:
            os.close(holders[run]._fd)
            holders[run], pending[run] = Holder(spool), []
        if what == "end":
            pending[run].append((host.uptime, 1))
        granted, room = files[run].take(holders[run].name, 1, pending[run], 0)
        pending[run] = []
        if not granted:
            again = host.booted + room.at + drawn.uniform(0.0, 0.2)
            heapq.heappush(events, (again, next(tie), "take", run))
            continue
        lasts = drawn.uniform(0.02, 0.4)
        heapq.heappush(events, (moment + drawn.uniform(0.0, lasts), next(tie), "seen", run))
        heapq.heappush(events, (moment + lasts, next(tie), "end", run))
    for holder in holders:
        holder.close()
    return provider


def test_8_runs_with_kills_use_98_percent_of_an_allowance_and_never_more(spool: Spool) -> None:
    """30 a minute, and as many a day as are to be had within half an hour or, in the long form, 10,000."""
    hours = float(os.environ.get("MAILER_PACE_HOURS", "25"))
    terms = Terms(per_minute=30, per_day=10_000 if hours > 25 else 930)
    provider = simulate(spool, terms, hours, random.Random(2))
    assert provider.throttled == 0
    within = sum(moment < 100 + HOUR / 2 for moment in provider.seen)
    assert within >= 0.98 * 30 * 30
    days = hours / 24
    allowed = terms.per_day * int(days) + min(terms.per_day, 30 * 60 * 24 * (days % 1))
    assert len(provider.seen) >= 0.98 * allowed


def test_a_record_that_cannot_be_read_counts_as_used_up_and_one_that_is_gone_as_unused(spool: Spool) -> None:
    terms = Terms(per_minute=30)
    file = BudgetFile(spool, ACCOUNT, terms, lambda: at(50), lambda: True)
    path = spool.path / STATE / f"{file_name(ACCOUNT)}.json"
    for damaged in (b"", b"{", b"[]", b'{"used":[[1e999,1]]}', b"\xff"):
        path.write_bytes(damaged)
        assert file.look().free == 0, damaged
    path.unlink()
    assert file.look().free == 30


def test_a_record_that_the_system_does_not_let_us_read_keeps_mail_back_and_stays(spool: Spool) -> None:
    """A loop of links stands for permissions and bad sectors, which do not keep root from reading."""
    file = BudgetFile(spool, ACCOUNT, Terms(per_minute=30), lambda: at(50), lambda: True)
    holder = Holder(spool)
    path = spool.path / STATE / f"{file_name(ACCOUNT)}.json"
    path.symlink_to(path)
    assert file.look().free == 0
    for change in (lambda: file.take(holder.name, 1, [], 0), lambda: file.put(holder.name, [(1.0, 1)], 0)):
        with pytest.raises(Unavailable, match=str(path)):
            change()
    assert path.is_symlink()
    holder.close()


def test_each_message_reads_why_nothing_may_be_taken(spool: Spool) -> None:
    """Not only the first one, which has looked."""
    file = BudgetFile(spool, ACCOUNT, Terms(per_day=30), lambda: at(50), lambda: True)
    path = spool.path / STATE / f"{file_name(ACCOUNT)}.json"
    path.symlink_to(path)
    purse = Purse(file, "smtp.example.com", "Acme", lambda: "run", Clocks(lambda: NOON, lambda: 50.0, "one"))

    async def reasons() -> list[str]:
        raised = await asyncio.gather(*[purse.take(1) for _ in range(2)], return_exceptions=True)
        return [one.reason for one in raised if isinstance(one, Spent)]

    first, second = asyncio.run(reasons())
    assert first == second
    assert f"cannot be read: {path}" in first


def test_what_a_dead_run_held_counts_as_used_when_others_run_short(spool: Spool) -> None:
    terms, clock = Terms(per_minute=10), [100.0]
    file = BudgetFile(spool, ACCOUNT, terms, lambda: at(clock[0]), lambda: True)
    dead, living, another = Holder(spool), Holder(spool), Holder(spool)
    assert file.take(dead.name, 6, [], 0)[0] == 6
    assert file.take(living.name, 9, [], 0)[0] == 4
    os.close(dead._fd)
    clock[0] = 150.0
    granted, room = file.take(another.name, 1, [], 0)
    assert (granted, room.at) == (0, 210.0)
    file.put(living.name, [], 1)
    assert file.take(another.name, 9, [], 0)[0] == 3
    assert not (spool.path / STATE / dead.name).exists()
    living.close()
    another.close()
