"""Destination queues: for each destination, the active messages and those put back into `new/` to wait.

A waiting message holds no lock, no descriptor and no place in the run, and another runner may claim it. If
this run ends first, the message is in `new/` as if the run had never seen it.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable

from mailer.send.destination_status import SLOW, DestinationStatus
from mailer.send.smtp.hop_sessions import HANG_AFTER
from mailer.spool.run.claim import Claim
from mailer.spool.transitions import Move

_MAX_WAITING = 50_000
"""The most names to keep. Beyond that, messages are tried, and deferred if the server does not answer."""
_FOLLOWERS = 2
"""Waiting messages to release when one ends. More than one, so that the rate to a working destination grows;
few, so that a failing destination is not given many at a time."""

_LATER = 1.0
"""Seconds until a message has surely begun to open its session. The next message must find that the hop
hangs, and not wait for it as well."""


class DestinationQueues:
    """The active and the waiting messages of a run, by destination."""

    def __init__(
        self, destinations: DestinationStatus | None, most: int, goes_direct: Callable[[Claim, str], bool]
    ) -> None:
        """Prepare.

        Args:
            destinations: the health of the direct route's destinations; None if that route is not used.
            most: the most active messages to one destination.
            goes_direct: tells whether a message takes the direct route to a recipient; may raise OSError.
        """
        self._destinations = destinations
        self._goes_direct = goes_direct
        self._most = most
        self.look_every = 1.0 if destinations is None else 0.1
        """Seconds between looks at `waits`, which changes sooner where the direct route is used."""
        self._active: Counter[str] = Counter()
        self._waiting: dict[str, deque[str]] = {}
        self.names: set[str] = set()
        """Names of the waiting messages, which must stay in `new/`."""
        self.missed = False
        """Whether some messages have stopped waiting that only a new pass will find."""

    def puts_back(self, claim: Claim, destination: str) -> bool:
        """Put a message back into `new/` and release it, if its destination is full.

        Returns True if that was done; the caller must then not use the claim any more.
        """
        if not self._active[destination] or claim.recovered or len(self.names) >= _MAX_WAITING:
            return False
        if not destination or not self._destinations or not self._full(destination, self._destinations):
            return False
        try:
            claim.locked.move(Move.UNCLAIM)
        except OSError:
            return False  # The message is tried instead, and the attempt reports what is wrong.
        with contextlib.suppress(OSError):
            claim.locked.settle()
        claim.locked.release()
        self.names.add(claim.id)
        self._waiting.setdefault(destination, deque()).append(claim.id)
        return True

    def begin(self, destination: str) -> None:
        self._active[destination] += 1

    def end(self, destination: str) -> list[str]:
        """Record that a message to a destination is done; return the names of those to claim next.

        Messages for a destination that was found dead get no precedence over others: they stay in `new/` for
        the next pass.
        """
        self._active[destination] -= 1
        if not self._active[destination]:
            del self._active[destination]
        waiting = self._waiting.get(destination)
        if not waiting:
            return []
        if self._destinations and self._destinations.dead(destination):
            self.names.difference_update(self._waiting.pop(destination))
            self.missed = True
            return []
        count = _FOLLOWERS if self._active[destination] else len(waiting)
        names = [waiting.popleft() for _ in range(min(count, len(waiting)))]
        if not waiting:
            del self._waiting[destination]
        self.names.difference_update(names)
        return names

    def waits(self, destination: str, seconds: float) -> bool:
        """Tell whether a message that has been active for `seconds` only waits, and so takes no place."""
        if self._destinations is None:
            return seconds > HANG_AFTER + _LATER
        return self._destinations.stuck(destination) if destination else seconds > SLOW

    def _full(self, destination: str, destinations: DestinationStatus) -> bool:
        return not destinations.dead(destination) and (
            not destinations.answered(destination)
            or self._active[destination] >= self._most
            or destinations.stuck(destination)
        )

    def destination_of(self, claim: Claim) -> str:
        """Return the domain that all open recipients have in common, if they take the direct route.

        Returns an empty string if there are several domains, or the message takes another route.
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
            return ""  # The message cannot be read; the attempt will report that.
