"""What keeps all mail from being tried, and when a message is tried next: the same answer for all displays.

A message's journal says when it is due. Listings, `why`, the dry run, the status page and `mailer top` ask
this module when it is tried if the operator, or the providers' state, keeps everything back.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from math import inf

import msgspec

from mailer.mail import clock
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.journal import Event
from mailer.spool.layout import Place, Spot, full_minute
from mailer.spool.scan import names
from mailer.spool.state import provider_state
from mailer.spool.state.pause import describe, read_pause
from mailer.spool.state.provider_state import Health, ProviderState, health
from mailer.spool.view.inspect import look

_IN_HAND = 500
"""The most messages in `cur/` to look at; a runner holds at most 220 by default."""
_ROOM = 64 * 1024
"""Octets. With less free there is no room for a few outcomes, which is reserved before anything is sent."""


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps mail back which could otherwise be tried."""

    until: float | None
    """When it ends, in seconds since the epoch; None if only the operator ends it."""
    ends: str = ""
    """How the operator ends it, worded to follow "next"."""
    brief: str
    """The cause, for a line of a listing."""
    said: str
    """All of it in a sentence, without the full stop."""


class ExhaustedBudget(msgspec.Struct, frozen=True):
    """A provider's budget that is used up."""

    until: float
    """When there is room again, in seconds since the epoch."""
    waits: bool
    """Whether all mail waits for it, unless the provider is paused; else the next one gets it."""
    words: str
    """How much of what is used."""


class Next(msgspec.Struct, frozen=True):
    """When a message is tried next."""

    due: float | None
    """When it is due by its journal, in seconds since the epoch; None if now."""
    obstacle: Obstacle | None = None
    """What keeps it from being tried when it is due; None if nothing does."""

    def words(self, now: float) -> str:
        """Say this in a few words; args: now: seconds since the epoch."""
        if self.obstacle is None:
            return "next at the next run" if self.due is None else words.due(self.due, now)
        if self.obstacle.until is None:
            return f"next {self.obstacle.ends}: {self.obstacle.brief}"
        return f"not before {words.moment(self.obstacle.until)}: {self.obstacle.brief}"


def next_attempt(due: float | None, obstacles: Collection[Obstacle]) -> Next:
    """Return when a message is tried next; args: due: as `Next.due`."""
    last = max(obstacles, key=_end, default=None)
    if last is None or (due is not None and full_minute(due) >= _end(last)):
        return Next(due)
    return Next(due, last)


def _end(obstacle: Obstacle) -> float:
    return inf if obstacle.until is None else obstacle.until


def obstacles(
    spool: Spool,
    ways: Mapping[str, str],
    now: float,
    account_at: Callable[[str], str],
    used_up: Mapping[str, ExhaustedBudget] | None = None,
) -> tuple[Obstacle, ...]:
    """Return everything that keeps all mail back.

    Args:
        spool: the spool, with the state of runners and providers.
        ways: the providers' names by their accounts; empty if mail may leave without a provider.
        now: seconds since the epoch.
        account_at: returns the account of a hop in a journal; empty if it has none.
        used_up: the budgets that are used up, by account.
    """
    found = (
        _pause(spool),
        _disk(spool),
        _rest(spool, ways, now),
        _budget(spool, ways, now, used_up) if used_up else None,
        _turns(spool, ways, now, account_at),
    )
    return tuple(filter(None, found))


def _pause(spool: Spool) -> Obstacle | None:
    paused = read_pause(spool)
    if paused is None:
        return None
    ends = "after `mailer resume`"
    return Obstacle(until=None, ends=ends, brief="sending is paused", said=describe(paused))


def _disk(spool: Spool) -> Obstacle | None:
    """Return an obstacle if nothing can be written: outcomes could not be recorded, so nothing is sent."""
    disk = spool.free_space()
    if disk.read_only:
        why, todo = "is mounted read-only", "dmesg says why; mount -o remount,rw"
    elif disk.is_under(_ROOM):
        why, todo = f"is full ({words.size(disk.octets or 0)} free)", "make room: df -h, df -i"
    else:
        return None
    said = (
        f"stopped, because the filesystem of {spool.path} {why}: mail is neither accepted nor sent ({todo})"
    )
    ends = "once the spool can be written"
    return Obstacle(until=None, ends=ends, brief=f"its filesystem {why}", said=said)


def _rest(spool: Spool, ways: Mapping[str, str], now: float) -> Obstacle | None:
    """Return until when every provider is paused; None while one of them gets mail."""
    states, moment = provider_state.read(spool), datetime.fromtimestamp(now, UTC)
    known = [(name, states.get(account, ProviderState())) for account, name in ways.items()]
    paused = [
        (state.open_until.timestamp(), name, state)
        for name, state in known
        if state.open_until and health(state, moment) is Health.OPEN
    ]
    if not known or len(paused) < len(known):
        return None
    until, name, state = min(paused, key=lambda each: each[0])
    others = f" (all {len(paused)} providers are)" if len(paused) > 1 else ""
    return Obstacle(
        until=until,
        brief="all providers are paused" if others else f"{name} is paused",
        said=f"No provider gets mail before {words.moment(until)}: "
        f"{name} is paused, {state.words}: {state.trouble}{others}",
    )


def _budget(
    spool: Spool, ways: Mapping[str, str], now: float, used_up: Mapping[str, ExhaustedBudget]
) -> Obstacle | None:
    """Return until when budgets keep all mail back: that of the provider it waits for, or those of all."""
    states, moment = provider_state.read(spool), datetime.fromtimestamp(now, UTC)
    ends: dict[str, float] = {}
    for account in ways:
        state, spent = states.get(account, ProviderState()), used_up.get(account)
        paused = state.open_until if health(state, moment) is Health.OPEN else None
        if paused is None and spent is None:
            return None
        ends[account] = max(paused.timestamp() if paused else now, spent.until if spent else now)
        if paused is None and spent and spent.waits:
            ends = {account: ends[account]}
            break
    account = min(ends, key=lambda each: (ends[each], each not in used_up), default="")
    if account not in used_up:
        return None  # All are paused, or a paused one is the first that can be used again.
    name, until = ways[account], ends[account]
    return Obstacle(
        until=until,
        brief=f"the allowance of {name} is used up",
        said=f"Nothing goes to {name} before {words.moment(until)}: its allowance is used up, "
        f"{used_up[account].words}",
    )


def _turns(
    spool: Spool, ways: Mapping[str, str], now: float, account_at: Callable[[str], str]
) -> Obstacle | None:
    """Return when the mail in `cur/` has had its turn, if it waits for one at every provider.

    A runner claims as much mail as may wait there; the mail in `new/` comes after that.
    """
    last: dict[str, tuple[float, int, Event]] = {}
    for each in _throttled(spool) if ways else ():
        with contextlib.suppress(ValueError):
            account, turn = account_at(each.hop), clock.seconds(each.next)
            before, count, _ = last.get(account, (now, 0, each))
            last[account] = (max(before, turn), count + 1, each)
    if not ways or ways.keys() - last.keys():
        return None
    account = min(ways, key=lambda way: last[way][0])
    until, count, event = last[account]
    if until <= now:
        return None
    name = ways[account]
    return Obstacle(
        until=until,
        brief=f"mail to {name} waits for its turn",
        said=f"Mail waits for its turn at {name} ({event.reason}): the last of "
        f"{words.count(count, 'claimed message')} has its turn at about {words.moment(until)}",
    )


def _throttled(spool: Spool) -> Iterator[Event]:
    """Yield what the messages that running runners hold wait for."""
    for name in islice(names(spool, Place.CUR), _IN_HAND):
        with contextlib.suppress(OSError):
            seen = look(spool, Spot(Place.CUR, name))
            if seen and seen.claimed and seen.entry and seen.entry.state.throttled:
                yield seen.entry.state.throttled


def sentences(found: Sequence[Obstacle]) -> str:
    """Return all of them as sentences; empty if there are none."""
    return " ".join(f"{each.said}." for each in found)
