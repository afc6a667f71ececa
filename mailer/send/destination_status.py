"""How destinations do during a run, so that one that does not answer costs the others nothing.

A destination is a recipient domain of the direct route. Three rules:

1. Until it has answered once, it gets one message at a time; the others wait in `new/`, as
   `destination_queues` has it.
2. When nothing has come to an end there for `STALL` seconds it is *stuck*: what it has in hand no longer
   counts against `sending.concurrency`, and what comes after waits in `new/` until something ends.
3. When an attempt has taken `SLOW` seconds or more to find that nobody answers, that is the answer for `DEAD`
   seconds to all who ask.

Nothing is remembered beyond the run: the schedule of each message is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mailer.send.phase import Phase
from mailer.send.trouble import HopTrouble, rule

STALL = 0.5
"""Seconds. A server's usual answer takes a few round trips."""
SLOW = 1.0
"""Seconds from which trouble is worth remembering; what fails at once costs nothing to ask again."""
DEAD = 60.0
"""Seconds, as the first step of the schedule."""
WAITING = 8
"""Messages that may wait for a stuck destination because they have recipients elsewhere, too."""
_MOST = 10_000
"""Destinations that are remembered."""


@dataclass(slots=True)
class _Destination:
    flying: int = 0
    moved: float = 0.0
    """When something last ended there, or began where nothing was."""
    answered: bool = False
    dead_until: float = 0.0
    trouble: HopTrouble | None = None


class DestinationStatus:
    """What is under way, by destination."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: seconds, never put back."""
        self._clock = clock
        self._known: dict[str, _Destination] = {}

    @contextmanager
    def towards(self, name: str) -> Iterator[None]:
        """Take an attempt at a destination into account while it lasts.

        Raises:
            HopTrouble: it was found dead a moment ago, or it is stuck and enough wait for it.
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
        """Tell whether it was found dead a moment ago, so that the caller need not wait to find out."""
        one = self._known.get(name)
        return one is not None and self._dead(one, self._clock())

    def answered(self, name: str) -> bool:
        """Tell whether the last that was heard from it was an answer."""
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
        if len(self._known) >= _MOST:
            self._known = {other: one for other, one in self._known.items() if one.flying}
        made = self._known[name] = _Destination()
        return made
