"""How many messages a sender, a user or everybody may submit in an hour and in a day.

The windows slide and are exact: a message counts for 3,600 or 86,400 seconds from the moment it was accepted.
Nothing is stored; the ledger's `accepted` lines are the state, read again at each start. A message that is on
its way in counts at once, so that a hundred sessions together cannot pass the limit, and is given back if it
is not accepted.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mailer.mail.clock import Clock

HOUR, DAY = 3600.0, 86400.0
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Rate:
    """Messages per hour and day; 0 means no limit."""

    per_hour: int = 0
    per_day: int = 0

    def windows(self) -> tuple[tuple[float, int], ...]:
        return tuple(
            (seconds, most) for seconds, most in ((HOUR, self.per_hour), (DAY, self.per_day)) if most
        )

    @property
    def memory(self) -> int:
        """How many of the latest times are enough to decide."""
        return max(self.per_hour, self.per_day)


def _nobodys(_: str) -> Rate | None:
    return None


@dataclass(frozen=True, slots=True)
class RateRules:
    """Who is limited by what."""

    per_sender: Rate = Rate()
    """Each envelope sender."""
    overall: Rate = Rate()
    """All messages together."""
    of_user: Callable[[str], Rate | None] = field(default=_nobodys, compare=False)
    """A user's own, in place of `per_sender`, whatever the sender; asked each time, for it may change."""
    users: Mapping[str, Rate] = field(default_factory=dict)
    """What `of_user` said of everybody when the counting began."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Who submitted a message, and when."""

    at: float
    user: str
    sender: str


@dataclass(frozen=True, slots=True)
class Full:
    """The limit that keeps one more message out for longest."""

    key: str
    """As `Use.key`."""
    most: int
    window: float
    """Seconds."""
    seconds: int
    """Until one more is taken."""


@dataclass(frozen=True, slots=True)
class Use:
    """What was counted under one name."""

    key: str
    """`sender ADDRESS`, `user NAME`, or `*` for everybody."""
    rate: Rate
    ages: tuple[float, ...]
    """Seconds since each message."""
    wait: int
    """Seconds until one more is taken."""

    def used(self, window: float) -> int:
        return sum(1 for age in self.ages if age < window)


class RateLimiter:
    """Counts messages against rules."""

    def __init__(self, rules: RateRules, clock: Clock, history: Iterable[Sent] = ()) -> None:
        """Begin with what was accepted before.

        Args:
            rules: see `RateRules`.
            clock: seconds since the epoch; it may jump.
            history: of the last day at least, in the order of time.
        """
        self.rules = rules
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        self._prune_at = 1024
        for sent in history:
            self._count(sent.user, sent.sender, sent.at)

    def wait(self, user: str, sender: str) -> int:
        """Return in how many seconds this user may send a message from this sender; 0: now."""
        now = self._clock()
        return max((self._wait(key, rate, now) for key, rate in self._limits(user, sender)), default=0)

    def full(self, user: str, sender: str) -> Full | None:
        """As `wait`, and say which limit it is; None: one more message is taken now."""
        now = self._clock()
        waits = [each for key, rate in self._limits(user, sender) for each in self._waits(key, rate, now)]
        return max(waits, key=lambda each: each.seconds, default=None)

    def take(self, user: str, sender: str) -> float:
        """Count a message that is on its way in, after `wait` said 0; return the time for `give_back`."""
        at = self._clock()
        self._count(user, sender, at)
        return at

    def give_back(self, user: str, sender: str, at: float) -> None:
        """The message was not accepted."""
        for key, _ in self._limits(user, sender):
            times = self._times.get(key)
            if times is not None and at in times:
                times.remove(at)

    def uses(self) -> list[Use]:
        """Say what each sender, user, and (`*`) everybody has used of their limits, in the order of names."""
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
        # A user's name and a sender's address are often the same word: the prefix keeps them apart.
        first = (f"user {user}", own) if own else (f"sender {sender.lower()}", self.rules.per_sender)
        return [(key, rate) for key, rate in (first, (_ALL, self.rules.overall)) if rate.memory]

    def _wait(self, key: str, rate: Rate, now: float) -> int:
        return max((each.seconds for each in self._waits(key, rate, now)), default=0)

    def _waits(self, key: str, rate: Rate, now: float) -> list[Full]:
        times = self._times.get(key)
        if not times:
            return []
        if times[-1] > now:
            # The clock was turned back: what it counted then would block for as long as it was ahead.
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
            times = self._times.get(key)
            if times is None or (times.maxlen or 0) < rate.memory:
                times = self._times[key] = deque(times or (), maxlen=rate.memory)
            times.append(at)
        if len(self._times) >= self._prune_at:
            self._prune(at)

    def _prune(self, now: float) -> None:
        """Forget who sent nothing for a day: a program may make a new sender for each message."""
        self._times = {key: times for key, times in self._times.items() if times and times[-1] > now - DAY}
        self._prune_at = max(1024, 2 * len(self._times))
