"""Messages by destination: which are in hand, and which a runner has put back into `new/` to wait for these.

Those that wait hold no lock, no descriptor and no place in the run; other runners may take them. If this run
ends first, they are in `new/` as if it had never seen them.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable

from mailer.send.destination_status import SLOW, DestinationStatus
from mailer.send.smtp.pool import HANGING
from mailer.spool.run.claim import Claim
from mailer.spool.transitions import Move

_MOST = 50_000
"""Names that are kept; with more, messages are tried, and deferred if nobody answers."""
_FOLLOW = 2
"""Messages that follow one that came to its end: more than one, so that a destination that works gets up to
speed; few, so that one that does not gets no crowd."""


class DestinationQueues:
    """Which messages are in hand, and which wait, by destination."""

    def __init__(
        self, destinations: DestinationStatus | None, most: int, goes_direct: Callable[[Claim, str], bool]
    ) -> None:
        """Prepare.

        Args:
            destinations: how the direct route's destinations do; None: no mail goes that way.
            most: messages in hand to one destination.
            goes_direct: tells whether a message goes that way to a recipient; may raise OSError.
        """
        self._destinations = destinations
        self._goes_direct = goes_direct
        self._most = most
        self._in_hand: Counter[str] = Counter()
        self._waiting: dict[str, deque[str]] = {}
        self.names: set[str] = set()
        """Of the messages that wait, and are to stay in `new/`."""
        self.missed = False
        """Some wait no longer, and only a pass will find them."""

    def puts_back(self, claim: Claim, destination: str) -> bool:
        """Put a message back if its destination has enough to do; it is not the caller's any more, then."""
        if not self._in_hand[destination] or claim.recovered or len(self.names) >= _MOST:
            return False
        if not destination or not self._destinations or not self._full(destination, self._destinations):
            return False
        try:
            claim.locked.move(Move.UNCLAIM)
        except OSError:
            return False  # Then it is tried, which tells what is wrong.
        with contextlib.suppress(OSError):
            claim.locked.settle()
        claim.locked.release()
        self.names.add(claim.id)
        self._waiting.setdefault(destination, deque()).append(claim.id)
        return True

    def begin(self, destination: str) -> None:
        self._in_hand[destination] += 1

    def end(self, destination: str) -> list[str]:
        """A message to a destination has come to its end; name those whose turn it is now.

        Those for a destination that was found dead have no turn before others: they stay in `new/`, for the
        next pass.
        """
        self._in_hand[destination] -= 1
        if not self._in_hand[destination]:
            del self._in_hand[destination]
        waiting = self._waiting.get(destination)
        if not waiting:
            return []
        if self._destinations and self._destinations.dead(destination):
            self.names.difference_update(self._waiting.pop(destination))
            self.missed = True
            return []
        count = _FOLLOW if self._in_hand[destination] else len(waiting)
        names = [waiting.popleft() for _ in range(min(count, len(waiting)))]
        if not waiting:
            del self._waiting[destination]
        self.names.difference_update(names)
        return names

    def waits(self, destination: str, seconds: float) -> bool:
        """Tell whether a message that is in hand for so long only waits, and leaves its place to others."""
        if self._destinations is None:
            return seconds > HANGING
        return self._destinations.stuck(destination) if destination else seconds > SLOW

    def _full(self, destination: str, destinations: DestinationStatus) -> bool:
        return not destinations.dead(destination) and (
            not destinations.answered(destination)
            or self._in_hand[destination] >= self._most
            or destinations.stuck(destination)
        )

    def destination_of(self, claim: Claim) -> str:
        """Return the domain of the direct route that all open recipients have in common.

        Empty: there are several, or the message goes another way.
        """
        if self._destinations is None:
            return ""
        last = {s.address.rpartition("@")[2].lower(): s.address for s in claim.entry.state.open}
        if len(last) != 1:
            return ""
        [(domain, address)] = last.items()
        try:
            return domain if self._goes_direct(claim, address) else ""
        except OSError:
            return ""  # It cannot be read: the attempt will tell.
