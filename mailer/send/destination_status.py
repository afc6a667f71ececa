"""Destination status: the health of destinations during a run, so that a dead one does not delay the others.

A destination is a recipient domain of the direct route. There are three rules:

1. Until it has answered once, it gets one message at a time; the others wait in `new/`, in
   `destination_queues`.
2. When no delivery has ended there for `STALL` seconds, the destination is *stuck*: its deliveries no longer
   count against `sending.concurrency`, and further messages wait in `new/` until one ends.
3. When an attempt took `SLOW` seconds or more to find that the destination does not answer, it is *dead*: for
   `DEAD` seconds, further attempts fail immediately with the same trouble.

Nothing of this outlives the run. Across runs, each message's own retry schedule applies.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mailer.send.phase import Phase
from mailer.send.trouble import HopTrouble, rule

STALL = 0.5
"""Seconds without progress after which a destination is stuck. Usual replies take a few round trips."""
SLOW = 1.0
"""Seconds that a failed attempt must have taken to be remembered. Fast failures are cheap to repeat."""
DEAD = 60.0
"""Seconds that a destination stays dead; the same as the first step of the retry schedule."""
WAITING = 8
"""The most messages that may wait for a stuck destination because they have other recipients too."""
_MAX_KNOWN = 10_000
"""The most destinations to remember."""


@dataclass(slots=True)
class _Destination:
    flying: int = 0
    moved: float = 0.0
    """When a delivery last ended there, or began while there was no other."""
    answered: bool = False
    dead_until: float = 0.0
    trouble: HopTrouble | None = None


class DestinationStatus:
    """The health of each destination, and how many deliveries are in progress there."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Prepare; `clock` is monotonic, in seconds."""
        self._clock = clock
        self._known: dict[str, _Destination] = {}

    @contextmanager
    def towards(self, name: str) -> Iterator[None]:
        """Count an attempt at a destination while it lasts, and remember how it ended.

        Raises:
            HopTrouble: the destination is dead, or it is stuck and enough messages wait for it already.
        """
        one = self._known.get(name) or self._new(name)
        now = self._clock()
        if one.trouble and self._dead(one, now):
            raise one.trouble.again()
        if one.flying >= WAITING and self._stuck(one, now):
            text = "it does not answer, and other messages wait for it already"
            raise HopTrouble(name, Phase.CONNECT, text)
        if not one.flying:
            one.moved = now
        one.flying += 1
        try:
            yield
        except HopTrouble as trouble:
            self._remember(one, trouble, now)
            raise
        else:
            one.answered, one.trouble = True, None
        finally:
            one.flying -= 1
            one.moved = self._clock()

    def dead(self, name: str) -> bool:
        """Tell whether the destination was found dead recently, so that no other attempt need wait for it."""
        one = self._known.get(name)
        return one is not None and self._dead(one, self._clock())

    def answered(self, name: str) -> bool:
        """Tell whether the destination answered the last attempt whose result is known."""
        one = self._known.get(name)
        return one is not None and one.answered

    def stuck(self, name: str) -> bool:
        one = self._known.get(name)
        return one is not None and self._stuck(one, self._clock())

    def _dead(self, one: _Destination, now: float) -> bool:
        return one.trouble is not None and now < one.dead_until

    def _stuck(self, one: _Destination, now: float) -> bool:
        return one.flying > 0 and now - one.moved > STALL

    def _remember(self, one: _Destination, trouble: HopTrouble, began: float) -> None:
        now = self._clock()
        if now - began < SLOW:
            one.answered = True
        elif rule(trouble.scope, trouble.hardness, hops_left=False).breaker:
            one.answered, one.trouble, one.dead_until = False, trouble, now + DEAD

    def _new(self, name: str) -> _Destination:
        if len(self._known) >= _MAX_KNOWN:
            self._known = {other: one for other, one in self._known.items() if one.flying}
        made = self._known[name] = _Destination()
        return made
