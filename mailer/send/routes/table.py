"""The table of routes of a run, by the ways of the configuration."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mailer.send.routes.directions import Directions, Own, Target, Way, mail_of
from mailer.send.routes.route import Route
from mailer.send.routes.rules import Mail
from mailer.send.routes.turns import Turns
from mailer.spool.message_state import Standing
from mailer.spool.run.claim import Claim


class Table:
    """Chooses the routes for a recipient's mail."""

    def __init__(
        self,
        directions: Directions,
        routes: Mapping[Target, Route],
        turn: Callable[[], float] = random.random,
    ) -> None:
        """Prepare.

        Args:
            directions: the directions of the configuration.
            routes: one route for each target.
            turn: the random source for `Turns`.
        """
        self._directions = directions
        self._turns = {
            way: Turns([[(routes[target], weight) for target, weight in group] for group in way.groups], turn)
            for way in directions.ways
        }
        ways = [turns.all for turns in self._turns.values()]
        self.all = tuple(routes.values()) if all(ways) else ()
        """Every route; empty if some way has no route, so that its mail stays in the spool."""
        # The direct route recognizes a hop only by its port, so it is asked last.
        self._by_hop = sorted(routes.values(), key=lambda route: route is routes.get(Own.DIRECT))

    def divide(self, claim: Claim, standings: Sequence[Standing]) -> dict[Way, list[Standing]]:
        """Group recipients of one message by way; raises OSError if the message cannot be read."""
        if len(self._directions.ways) == 1:
            return {self._directions.ways[0]: list(standings)}
        ways = dict[Way, list[Standing]]()
        mail = _mail(claim)
        for standing in standings:
            ways.setdefault(self._directions.of(mail, standing.address), []).append(standing)
        return ways

    def next(self, way: Way) -> tuple[Route, ...]:
        """Return the routes for the next message of this way, in order; empty if it stays in the spool."""
        return self._turns[way].next()

    def leading_to(self, hop: str) -> Route | None:
        """Return the route that leads to a hop, named as in an outcome; None if there is none any more."""
        return next((route for route in self._by_hop if route.leads_to(hop)), None)

    def goes_direct(self, claim: Claim, address: str) -> bool:
        """Tell whether a recipient's mail takes the direct route first; raises OSError like `divide`."""
        if len(self._directions.ways) == 1:
            way = self._directions.ways[0]
        else:
            way = self._directions.of(_mail(claim), address)
        return way.targets[:1] == (Own.DIRECT,)


def _mail(claim: Claim) -> Mail:
    return mail_of(claim.entry, partial(claim.locked.read_message, claim.entry))
