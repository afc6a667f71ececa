"""The order of routes: by priority; among equals in turn, as often as the weight of each says."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from mailer.send.routes.route import Route

_GOLDEN = 0.6180339887498949
"""Steps of this length around a circle of length 1 fall everywhere equally often, however many there are, so
that a few messages are shared as evenly as many; drawing lots would not (Weyl's sequence)."""

Weighted = tuple[Route, int]


class Turns:
    """Gives each message its routes, in order."""

    def __init__(self, groups: Sequence[Sequence[Weighted]], random: Callable[[], float]) -> None:
        """Prepare.

        Args:
            groups: the routes by priority, those of equal priority together, each with its weight; all
                weights of a group zero: its order is fixed.
            random: gives a number in [0, 1). Each run begins somewhere else, since it may have one message.
        """
        self._groups = groups
        self._point = random()
        self.all = tuple(route for group in groups for route, _ in group)
        """Every route; in the order in which they are tried if nothing is shared."""
        self._fixed = not any(weight for group in groups for _, weight in group if len(group) > 1)

    def next(self) -> tuple[Route, ...]:
        """Return the routes of the next message."""
        if self._fixed:
            return self.all
        self._point = (self._point + _GOLDEN) % 1.0
        return tuple(route for group in self._groups for route in _turned(group, self._point))


def _turned(group: Sequence[Weighted], point: float) -> list[Route]:
    """Put the one whose turn it is first; if it fails, the others are tried by weight."""
    weights = [weight for _, weight in group]
    ends = [*accumulate(weights)]
    if not ends[-1]:
        return [route for route, _ in group]
    first = bisect_right(ends, point * ends[-1])
    others = sorted([*group[:first], *group[first + 1 :]], key=lambda one: -one[1])
    return [group[first][0], *(route for route, _ in others)]
