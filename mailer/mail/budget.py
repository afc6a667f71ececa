"""Sending budgets: how much may be sent through a provider or to a domain, and how much was. Plain values.

Budgets count recipients or transactions. A run *holds* a unit from before its transaction begins until the
transaction has ended; from then on the unit is *used*. The provider counts it at some instant in between.
Here it stops counting one window (a minute, an hour, a day) after it was used, so the unit that takes its
place begins at least one window after the provider counted the first. Therefore no window of the provider
sees more than is allowed, wherever its windows begin. The cost is the duration of transactions: at half a
second each, 0.8 % of an allowance per minute.

Instants are those of the boot clock, which cannot be set. Across a reboot it is unknown how long the host was
off: at least the new boot's uptime has passed, and more is assumed only while the wall clock is trusted. An
error therefore delays mail, and never multiplies an allowance.
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

UNKNOWN = 1_000_000_000
"""The number of units that stands for an unknown one: no limit is higher."""
_CELLS_PER_WINDOW = 512
"""Cells per window; instants within one cell may be merged (an error of 0.2 % of an allowance)."""
_MAX_INSTANTS = 2048
"""Instants kept in a record before those in the same cell are merged."""


class Counted(StrEnum):
    """What a budget counts."""

    RECIPIENTS = "recipients"
    """What most providers count, particularly per day."""
    MESSAGES = "messages"
    """Transactions; a message to more recipients than `batchSize` needs several."""


class WhenUsedUp(StrEnum):
    """What happens to mail while a budget is exhausted."""

    WAIT = "wait"
    NEXT = "next"
    """Send it through the next provider; it waits only if there is none."""


class Limit(msgspec.Struct, frozen=True):
    """The most that may be used in one window."""

    per: str
    """`minute`, `hour` or `day`."""
    most: int
    grows: float | None = None
    """The instant at which the limit grows (`Allowance.warm_up`); None: never."""

    @property
    def window(self) -> float:
        return WINDOWS[self.per]

    def __str__(self) -> str:
        return f"{self.most:,} a {self.per}" if self.per != "hour" else f"{self.most:,} an hour"


class Allowance(msgspec.Struct, frozen=True):
    """The configured limits of a budget; 0: no limit."""

    per_minute: int = 0
    per_hour: int = 0
    per_day: int = 0
    warm_up: tuple[int, ...] = ()
    """The limits of the first day, the second, and so on, which apply instead of `per_day`."""
    counted: Counted = Counted.RECIPIENTS
    when_used_up: WhenUsedUp = WhenUsedUp.WAIT

    def __bool__(self) -> bool:
        return bool(self.per_minute or self.per_hour or self.per_day or self.warm_up)

    def limits(self, began: float | None, now: float) -> Iterator[Limit]:
        """Yield the limits that apply now.

        Args:
            began: when the warm-up began; None: it begins now.
            now: an instant of the boot clock.
        """
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
        """Average seconds between units when the whole allowance is used."""
        limits = [*self.limits(None, 0.0)]
        return max((limit.window / limit.most for limit in limits), default=0.0)

    @property
    def reserve(self) -> int:
        """Units a run reserves in one step: a hundredth of the smallest limit, to leave some for others."""
        return max(1, min((limit.most for limit in self.limits(None, 0.0)), default=0) // 100)


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The usage record of one budget; instants are seconds of the boot clock of `boot`."""

    of: str = ""
    """Which budget this is: the provider's account, or the domains."""
    boot: str = ""
    uptime: float = 0.0
    """The boot clock when this was written."""
    at: str = ""
    """The wall clock at that time, in the ledger's format; empty: the clock was not trusted."""
    began: float | None = None
    """When the warm-up began."""
    used: tuple[tuple[float, int], ...] = ()
    """(instant, units used then), the earliest first."""
    held: dict[str, int] = {}
    """Units that each run has reserved and not used yet, by the name of its lock."""

    def within(self, window: float, now: float) -> int:
        """Return the units that count against a window that ends now, held ones included."""
        count = sum(self.held.values())
        for instant, number in reversed(self.used):
            if instant <= now - window:
                break
            count += number
        return count


class Room(msgspec.Struct, frozen=True):
    """What is left of a budget."""

    free: int
    at: float
    """The instant at which a unit is free again; now or earlier if one already is. It may be too late by up
    to one window, since units that other runs hold may be given back unused."""
    limit: Limit | None
    """The limit that is exhausted; None: none is."""


def brought_forward(use: Use, reading: Reading, *, trusted: bool) -> Use:
    """Convert a record to the current boot clock, and drop what no window counts any more.

    Units held by runs of an earlier boot count as used when this boot began, since those runs ended by then.

    Args:
        use: the record.
        reading: the clocks now.
        trusted: whether the wall clock is trusted.
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
        used=tuple(_merged(kept, now) if len(kept) > _MAX_INSTANTS else kept),
    )


def _merged(used: Iterable[tuple[float, int]], now: float) -> list[tuple[float, int]]:
    """Merge the instants of each cell into its latest; cells are larger for older instants."""
    cells: dict[tuple[float, float], tuple[float, int]] = {}
    for instant, number in used:
        cell = next(w for w in (*WINDOWS.values(), math.inf) if now - instant < w) / _CELLS_PER_WINDOW
        key = cell, instant // cell
        last, count = cells.get(key, (instant, 0))
        cells[key] = max(last, instant), count + number
    return sorted(cells.values())


def elsewhere(use: Use, reading: Reading, *, trusted: bool) -> Use:
    """Convert another host's record to our boot clock.

    The wall clocks of the hosts tell how long ago it was written. If one of them is not trusted, it counts as
    written now, so that an error delays mail. What it says is held counts for a day after it was written: a
    host that is gone gives nothing back.

    Args:
        use: the record, as the other host wrote it.
        reading: our clocks now.
        trusted: whether our wall clock is trusted.
    """
    now = reading.uptime
    passed = max(0.0, reading.wall - clock.seconds(use.at)) if trusted and use.at else 0.0
    shift = now - passed - use.uptime
    used = tuple((min(instant + shift, now), number) for instant, number in use.used)
    began = None if use.began is None else min(use.began + shift, now)
    return replace(use, used=used, held=use.held if passed < DAY else {}, began=began)


def together(own: Use, others: Iterable[Use]) -> Use:
    """Return what several hosts have used and hold, by the clock that all these records are in."""
    for other in others:
        beginnings = [began for began in (own.began, other.began) if began is not None]
        own = replace(
            own,
            used=tuple(sorted([*own.used, *other.used])),
            held=own.held | other.held,
            began=min(beginnings, default=None),
        )
    return own


def room(allowance: Allowance, use: Use, now: float) -> Room:
    """Return how much is left under all limits together."""
    free, at, scarce = UNKNOWN, now, None
    for limit in allowance.limits(use.began, now):
        left = limit.most - use.within(limit.window, now)
        free = min(free, left)
        if left < 1:
            again = _frees(use.used, limit, now, 1 - left)
            if again >= at:
                at, scarce = again, limit
    return Room(max(0, free), at, scarce)


def _frees(used: Sequence[tuple[float, int]], limit: Limit, now: float, needed: int) -> float:
    """Return the latest instant at which `needed` units are free again."""
    at = now + limit.window
    for instant, number in used:
        if instant > now - limit.window:
            needed -= number
            if needed <= 0:
                at = instant + limit.window
                break
    return at if limit.grows is None else min(at, limit.grows)


def reserved(allowance: Allowance, use: Use, holder: str, count: int, now: float) -> Use:
    """Add units to what a run holds; the first reservation under a warm-up starts the warm-up."""
    began = (now if use.began is None else use.began) if allowance.warm_up else None
    return replace(use, began=began, held={**use.held, holder: use.held.get(holder, 0) + count})


def settled(use: Use, holder: str, used: Iterable[tuple[float, int]], left: int) -> Use:
    """Record what a run has used, and that it now holds `left` units."""
    held = {name: count for name, count in use.held.items() if name != holder}
    if left:
        held[holder] = left
    return replace(use, held=held, used=tuple(sorted([*use.used, *used])))


def forfeited(use: Use, dead: Iterable[str], now: float) -> Use:
    """Count what dead runs held as used now, since it is unknown whether and when they used it."""
    for name in dead:
        use = settled(use, name, [(now, use.held[name])], 0)
    return use


class Spent(msgspec.Struct, frozen=True):
    """The usage of one limit, for display."""

    limit: Limit
    used: int
    free_at: float | None
    """Seconds since the epoch at which a unit is free again; None: one is free now."""


def in_words(used: int) -> str:
    """Say how much was used; `UNKNOWN` and more is what a record that cannot be read counts as."""
    return f"{used:,}" if used < UNKNOWN else "not known (its record is or was unreadable), so all"


def spent(allowance: Allowance, use: Use, reading: Reading) -> tuple[Spent, ...]:
    """Return the usage of each limit, from a record that was brought forward to this reading."""
    now = reading.uptime
    found = []
    for limit in allowance.limits(use.began, now):
        used = use.within(limit.window, now)
        at = _frees(use.used, limit, now, used - limit.most + 1) if used >= limit.most else None
        found.append(Spent(limit, used, None if at is None else reading.wall + at - now))
    return tuple(found)
