"""Rate limits: how many messages a sender, a user or all together may submit in an hour and in a day.

The windows slide and are exact: a message counts for 3,600 or 86,400 seconds from the moment it was accepted.
No state is stored, because the `accepted` lines of the ledger are read at each start. A message is counted as
soon as it begins to arrive, so that a hundred concurrent sessions cannot exceed the limit; if it is not
accepted, the count is undone.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mailer.mail.clock import Clock
from mailer.mail.patterns import compared

HOUR, DAY = 3600.0, 86400.0
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit in messages per hour and per day; 0 means no limit."""

    per_hour: int = 0
    per_day: int = 0

    def windows(self) -> tuple[tuple[float, int], ...]:
        return tuple(
            (seconds, most) for seconds, most in ((HOUR, self.per_hour), (DAY, self.per_day)) if most
        )

    @property
    def memory(self) -> int:
        """How many of the latest times must be kept to apply the limit."""
        return max(self.per_hour, self.per_day)


def _no_limit(_: str) -> Rate | None:
    return None


@dataclass(frozen=True, slots=True)
class RateRules:
    """The limits of senders, users, and all together."""

    per_sender: Rate = Rate()
    """The limit of each envelope sender."""
    overall: Rate = Rate()
    """The limit of all messages together."""
    of_user: Callable[[str], Rate | None] = field(default=_no_limit, compare=False)
    """Returns a user's own limit, which replaces `per_sender`; called each time, because it may change."""
    users: Mapping[str, Rate] = field(default_factory=dict)
    """The limits of all users when counting began."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was submitted before."""

    at: float
    user: str
    sender: str


@dataclass(frozen=True, slots=True)
class Full:
    """A limit that is reached; of several, the one with the longest wait."""

    key: str
    """As `Use.key`."""
    most: int
    """The limit, in messages."""
    window: float
    """The window of the limit, in seconds."""
    seconds: int
    """Seconds until one more message is accepted."""


@dataclass(frozen=True, slots=True)
class Use:
    """The messages counted under one key."""

    key: str
    """`sender ADDRESS`, `user NAME`, or `*` for all messages."""
    rate: Rate
    ages: tuple[float, ...]
    """The age of each message in seconds."""
    wait: int
    """Seconds until one more message is accepted."""

    def used(self, window: float) -> int:
        return sum(1 for age in self.ages if age < window)


class RateLimiter:
    """Counts messages and applies the limits."""

    def __init__(self, rules: RateRules, clock: Clock, history: Iterable[Sent] = ()) -> None:
        """Begin with the messages accepted before.

        Args:
            rules: see `RateRules`.
            clock: seconds since the epoch; it may jump.
            history: the messages of at least the last day, oldest first.
        """
        self.rules = rules
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        self._prune_at = 1024
        for sent in history:
            self._count(sent.user, sent.sender, sent.at)

    def wait(self, user: str, sender: str) -> int:
        """Return the seconds until this user may submit a message from this sender; 0: now."""
        now = self._clock()
        return max((self._wait(key, rate, now) for key, rate in self._limits(user, sender)), default=0)

    def full(self, user: str, sender: str) -> Full | None:
        """Return the limit that keeps this user from submitting from this sender; None: there is none now."""
        now = self._clock()
        waits = [each for key, rate in self._limits(user, sender) for each in self._waits(key, rate, now)]
        return max(waits, key=lambda each: each.seconds, default=None)

    def charge(self, user: str, sender: str) -> float:
        """Count a message that begins to arrive, if `full` is None; return the time for `refund`."""
        at = self._clock()
        self._count(user, sender, at)
        return at

    def count_elsewhere(self, sent: Sent) -> None:
        """Count a message that another host has accepted, a few seconds ago at most."""
        at = min(sent.at, self._clock())  # The other host's clock may be ahead.
        for key, rate in self._limits(sent.user, sent.sender):
            times = self._memory(key, rate)
            later = []  # Few: what was accepted here in these seconds.
            while times and times[-1] > at:
                later.append(times.pop())
            times.append(at)
            times.extend(reversed(later))

    def refund(self, user: str, sender: str, at: float) -> None:
        """Undo the count of a message that was not accepted; `at` is the result of `charge`."""
        for key, _ in self._limits(user, sender):
            times = self._times.get(key)
            if times is not None and at in times:
                times.remove(at)

    def uses(self) -> list[Use]:
        """Return what each sender, each user, and all together (`*`) have used of their limits, by key."""
        now = self._clock()
        return [
            Use(key, rate, tuple(now - at for at in times), self._wait(key, rate, now))
            for key, times in sorted(self._times.items())
            if (rate := self._rate_of(key)) is not None
        ]

    def _rate_of(self, key: str) -> Rate | None:
        if key == _ALL:
            return self.rules.overall
        kind, _, name = key.partition(" ")
        return self.rules.per_sender if kind == "sender" else self.rules.of_user(name)

    def _limits(self, user: str, sender: str) -> list[tuple[str, Rate]]:
        own = self.rules.of_user(user) if user else None
        # A user's name and a sender's address are often equal; the prefix keeps them apart.
        first = (f"user {user}", own) if own else (f"sender {compared(sender)}", self.rules.per_sender)
        return [(key, rate) for key, rate in (first, (_ALL, self.rules.overall)) if rate.memory]

    def _wait(self, key: str, rate: Rate, now: float) -> int:
        return max((each.seconds for each in self._waits(key, rate, now)), default=0)

    def _waits(self, key: str, rate: Rate, now: float) -> list[Full]:
        times = self._times.get(key)
        if not times:
            return []
        if times[-1] > now:
            # The clock was set back. Uncorrected, these times would count for as long as it was ahead.
            ahead = times[-1] - now
            times = self._times[key] = deque((at - ahead for at in times), maxlen=times.maxlen)
        waits = [
            Full(key, most, window, math.ceil(times[-most] + window - now))
            for window, most in rate.windows()
            if len(times) >= most
        ]
        return [each for each in waits if each.seconds > 0]

    def _count(self, user: str, sender: str, at: float) -> None:
        for key, rate in self._limits(user, sender):
            self._memory(key, rate).append(at)
        if len(self._times) >= self._prune_at:
            self._prune(at)

    def _memory(self, key: str, rate: Rate) -> deque[float]:
        """Return the times of a key, with room for as many as the limit needs."""
        times = self._times.get(key)
        if times is None or (times.maxlen or 0) < rate.memory:
            times = self._times[key] = deque(times or (), maxlen=rate.memory)
        return times

    def _prune(self, now: float) -> None:
        """Remove keys without messages for a day, because a program may use a new sender for each message."""
        self._times = {key: times for key, times in self._times.items() if times and times[-1] > now - DAY}
        self._prune_at = max(1024, 2 * len(self._times))
