"""Budgets: how much may be sent through a provider, or to a domain, and how much was. Plain values.

What is counted (recipients or transactions) is *held* by a run from before its transaction begins, and *used*
when the transaction has ended. The provider counts it at some instant in between. It stops counting here one
window (a minute, an hour, a day) after it was used, so what takes its place begins at least one window after
the provider counted the first: however the provider's windows lie, none sees more than is allowed. The price
is the time that transactions take: at half a second each, 0.8 % of an allowance per minute.

Instants are those of the boot clock, which nothing sets. Over a reboot nobody knows how long the host was
off. At least the new boot's uptime has passed; more is believed only while the wall clock is. An error
therefore keeps mail back, and never multiplies an allowance.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.clock import Reading

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
WINDOWS = {"minute": MINUTE, "hour": HOUR, "day": DAY}

_FINE = 512
"""Parts of a window within which instants need not be told apart: 0.2 % of an allowance."""
_MOST = 2048
"""Instants that are kept apart before those close together are merged."""


class Counted(StrEnum):
    """What a budget counts."""

    RECIPIENTS = "recipients"
    """As most providers do, by the day above all."""
    MESSAGES = "messages"
    """Transactions: a message to more recipients than `batchSize` takes several."""


class WhenUsedUp(StrEnum):
    """What becomes of mail while a budget is used up."""

    WAIT = "wait"
    NEXT = "next"
    """The next provider gets it; it waits only when there is none."""


class Limit(msgspec.Struct, frozen=True):
    """What may be used in one window."""

    per: str
    """`minute`, `hour` or `day`."""
    most: int
    grows: float | None = None
    """The instant at which more is allowed (`Terms.warm_up`)."""

    @property
    def window(self) -> float:
        return WINDOWS[self.per]

    def __str__(self) -> str:
        return f"{self.most:,} a {self.per}" if self.per != "hour" else f"{self.most:,} an hour"


class Terms(msgspec.Struct, frozen=True):
    """What is allowed; 0: without limit."""

    per_minute: int = 0
    per_hour: int = 0
    per_day: int = 0
    warm_up: tuple[int, ...] = ()
    """What the first day allows, the second, and so on, instead of `per_day`."""
    counted: Counted = Counted.RECIPIENTS
    when_used_up: WhenUsedUp = WhenUsedUp.WAIT

    def __bool__(self) -> bool:
        return bool(self.per_minute or self.per_hour or self.per_day or self.warm_up)

    def limits(self, began: float | None, now: float) -> Iterator[Limit]:
        """Give the limits of this instant; args: began: when the warm-up began, None: now."""
        if self.per_minute:
            yield Limit("minute", self.per_minute)
        if self.per_hour:
            yield Limit("hour", self.per_hour)
        first = now if began is None else began
        day = int(max(0.0, now - first) // DAY)
        if day < len(self.warm_up):
            most = min(self.warm_up[day], self.per_day or self.warm_up[day])
            yield Limit("day", most, grows=first + (day + 1) * DAY)
        elif self.per_day:
            yield Limit("day", self.per_day)

    @property
    def pause(self) -> float:
        """Seconds for one, on the whole, when all of an allowance is used."""
        limits = [*self.limits(None, 0.0)]
        return max((limit.window / limit.most for limit in limits), default=0.0)

    @property
    def reserve(self) -> int:
        """How much a run reserves at once: a hundredth of the smallest limit, to leave some to others."""
        return max(1, min((limit.most for limit in self.limits(None, 0.0)), default=0) // 100)


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was used of one budget; instants are seconds of the boot clock of `boot`."""

    of: str = ""
    """The provider's account, or the domains."""
    boot: str = ""
    uptime: float = 0.0
    """The boot clock when this was written."""
    at: str = ""
    """The wall clock then, as the ledger writes times; empty: it was not believed."""
    began: float | None = None
    """When the warm-up began."""
    used: tuple[tuple[float, int], ...] = ()
    """How many were used at which instant, the earliest first."""
    held: dict[str, int] = {}
    """What each run has reserved and not used yet, by the name of its lock."""

    def within(self, window: float, now: float) -> int:
        """How many count against a window that ends now."""
        count = sum(self.held.values())
        for instant, number in reversed(self.used):
            if instant <= now - window:
                break
            count += number
        return count


class Room(msgspec.Struct, frozen=True):
    """What is left."""

    free: int
    at: float
    """The instant at which one is free again; now, or before, if one is. Later by one window at most, where
    what others hold may come back unused."""
    limit: Limit | None
    """What is used up; None: nothing."""


def brought_forward(use: Use, reading: Reading, *, trusted: bool) -> Use:
    """Express a record in the boot clock of now, and forget what no window counts any more.

    What runs of another boot held counts as used when this boot began: a power cut ended them before that.

    Args:
        use: the record.
        reading: the clocks now.
        trusted: the wall clock is believed.
    """
    now = reading.uptime
    if use.uptime and (use.boot != reading.boot or now < use.uptime):
        passed = now
        if trusted and use.at:
            passed = max(passed, reading.wall - clock.seconds(use.at))
        shift = now - passed - use.uptime
        used = [(instant + shift, number) for instant, number in use.used]
        if lost := sum(use.held.values()):
            used.append((0.0, lost))
        began = None if use.began is None else use.began + shift
        use = replace(use, used=tuple(used), held={}, began=began)
    kept = sorted((min(instant, now), number) for instant, number in use.used if instant > now - DAY)
    return replace(
        use,
        boot=reading.boot,
        uptime=now,
        at=clock.rfc3339(reading.wall) if trusted else "",
        used=tuple(_merged(kept, now) if len(kept) > _MOST else kept),
    )


def _merged(used: Iterable[tuple[float, int]], now: float) -> list[tuple[float, int]]:
    """Merge instants that are close together for their age into the last of them."""
    cells: dict[tuple[float, float], tuple[float, int]] = {}
    for instant, number in used:
        cell = next(w for w in (*WINDOWS.values(), math.inf) if now - instant < w) / _FINE
        key = cell, instant // cell
        last, count = cells.get(key, (instant, 0))
        cells[key] = max(last, instant), count + number
    return sorted(cells.values())


def room(terms: Terms, use: Use, now: float) -> Room:
    """Tell how much is left of all limits together."""
    free, at, scarce = 1_000_000_000, now, None
    for limit in terms.limits(use.began, now):
        left = limit.most - use.within(limit.window, now)
        free = min(free, left)
        if left < 1:
            again = _frees(use.used, limit, now, 1 - left)
            if again >= at:
                at, scarce = again, limit
    return Room(max(0, free), at, scarce)


def _frees(used: Sequence[tuple[float, int]], limit: Limit, now: float, needed: int) -> float:
    """Tell when so many are free again, at the latest."""
    at = now + limit.window
    for instant, number in used:
        if instant > now - limit.window:
            needed -= number
            if needed <= 0:
                at = instant + limit.window
                break
    return at if limit.grows is None else min(at, limit.grows)


def reserved(terms: Terms, use: Use, holder: str, count: int, now: float) -> Use:
    """Add to what a run holds; the first of a warm-up begins it."""
    began = (now if use.began is None else use.began) if terms.warm_up else None
    return replace(use, began=began, held={**use.held, holder: use.held.get(holder, 0) + count})


def settled(use: Use, holder: str, used: Iterable[tuple[float, int]], left: int) -> Use:
    """Record what a run has used, and that it holds so many from here on."""
    held = {name: count for name, count in use.held.items() if name != holder}
    if left:
        held[holder] = left
    return replace(use, held=held, used=tuple(sorted([*use.used, *used])))


def forfeited(use: Use, dead: Iterable[str], now: float) -> Use:
    """Count what dead runs held as used now: nobody knows when, and whether, they used it."""
    for name in dead:
        use = settled(use, name, [(now, use.held[name])], 0)
    return use


class Spent(msgspec.Struct, frozen=True):
    """One limit, as it is shown."""

    limit: Limit
    used: int
    free_at: float | None
    """In seconds since the epoch, if all of it is used: when one is free again."""


def spent(terms: Terms, use: Use, reading: Reading) -> tuple[Spent, ...]:
    """Tell what is used of each limit, by a record that was brought forward to this reading."""
    now = reading.uptime
    found = []
    for limit in terms.limits(use.began, now):
        used = use.within(limit.window, now)
        at = _frees(use.used, limit, now, used - limit.most + 1) if used >= limit.most else None
        found.append(Spent(limit, used, None if at is None else reading.wall + at - now))
    return tuple(found)
