"""The order of routes: by priority; routes of equal priority take turns, as often as their weights say."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from mailer.send.routes.route import Route

_GOLDEN = 0.6180339887498949
"""Steps of this length around a circle of length 1 are evenly distributed after any number of them (a Weyl
sequence). So a few messages are shared as evenly as many, which random choices would not achieve."""

Weighted = tuple[Route, int]


class Turns:
    """Chooses the order of routes for each message."""

    def __init__(self, groups: Sequence[Sequence[Weighted]], random: Callable[[], float]) -> None:
        """Prepare.

        Args:
            groups: the routes by priority, those of equal priority in one group, each with its weight. If all
                weights of a group are zero, its order is fixed.
            random: returns a number in [0, 1), so that each run starts elsewhere: it may have one message.
        """
        self._groups = groups
        self._point = random()
        self.all = tuple(route for group in groups for route, _ in group)
        """Every route, in the order in which they are tried if no group shares mail."""
        self._fixed = not any(weight for group in groups for _, weight in group if len(group) > 1)

    def next(self) -> tuple[Route, ...]:
        """Return the routes of the next message."""
        if self._fixed:
            return self.all
        self._point = (self._point + _GOLDEN) % 1.0
        return tuple(route for group in self._groups for route in _turned(group, self._point))


def _turned(group: Sequence[Weighted], point: float) -> list[Route]:
    """Return the routes of a group: first the one whose turn it is, then the others by weight."""
    weights = [weight for _, weight in group]
    ends = [*accumulate(weights)]
    if not ends[-1]:
        return [route for route, _ in group]
    first = bisect_right(ends, point * ends[-1])
    others = sorted([*group[:first], *group[first + 1 :]], key=lambda one: -one[1])
    return [group[first][0], *(route for route, _ in others)]
