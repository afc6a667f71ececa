"""Everything at a glance, as plain values: what the status page and `mailer top` show, each in its way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailer.config.model import Config
from mailer.maillog.series import DAY, HOUR, WEEK, Point, Span
from mailer.monitor import health
from mailer.monitor.health import Check, Status
from mailer.monitor.limits import LimitsView, Use
from mailer.monitor.providers import Provider, providers
from mailer.monitor.reading import Lookout, Reading
from mailer.spool import words
from mailer.spool.layout import Place
from mailer.spool.view.obstacles import Obstacle, next_attempt

MEANINGS = {
    Place.NEW: "ready to be sent",
    Place.CUR: "in a runner's hands",
    Place.RETRY: "will be tried again",
    Place.HOLD: "kept back until it is released",
    Place.FAILED: "given up, and yours to decide",
    Place.CORRUPT: "unreadable, never sent",
}
"""The states of the queue, as an operator meets them, and what they mean."""

Keeping = Callable[[float], tuple[Obstacle, ...]]

AT_REST = {Place.HOLD: "held", Place.FAILED: "given up", Place.CORRUPT: "unreadable"}


@dataclass(frozen=True, slots=True)
class Flow:
    """What happened over one stretch of time, in recipients."""

    name: str
    span: Span
    points: tuple[Point, ...]

    @property
    def sums(self) -> Point:
        """All of it in one."""
        return Point(
            self.points[0].at,
            sum(point.accepted for point in self.points),
            sum(point.sent for point in self.points),
            sum(point.deferred for point in self.points),
            sum(point.bounced for point in self.points),
        )


@dataclass(frozen=True, slots=True)
class Overview:
    """How things are."""

    reading: Reading
    checks: dict[str, Check]
    flows: tuple[Flow, ...]
    providers: tuple[Provider, ...]
    limits: tuple[Use, ...]
    obstacles: tuple[Obstacle, ...]
    """What keeps all mail back."""

    @property
    def status(self) -> Status:
        return health.worst(self.checks)

    @property
    def complaints(self) -> Sequence[str]:
        """What is not as it should be, the worst first."""
        found = [check for check in self.checks.values() if check.status is not Status.OK]
        found.sort(key=lambda check: check.status is not Status.FAILING)
        return [check.message for check in found]

    @property
    def in_short(self) -> str:
        """How much is on its way, and how much waits for the operator, in a few words."""
        queue = self.reading.queue
        on_the_way = f"{words.count(queue.waiting, 'message')} on the way" if queue.waiting else ""
        at_rest = (f"{queue[place].count:,} {said}" for place, said in AT_REST.items() if queue[place].count)
        return ", ".join(filter(None, (on_the_way, *at_rest))) or "nothing waits"

    @property
    def next_due(self) -> str:
        """When deferred mail is tried next, and how much of it."""
        if not self.reading.queue.due:
            return "Nothing waits for a time to be tried again."
        due, count = self.reading.queue.due[0]
        expected = next_attempt(due, self.obstacles).words(self.reading.at)
        return f"Of those to be tried again, {words.count(count, 'message')} {expected}."


def overview(
    lookout: Lookout, limits: LimitsView, config: Config, firing: frozenset[str], keeping: Keeping
) -> Overview:
    """Look at everything, in the caller's thread.

    Args:
        lookout: at the spool.
        limits: in use.
        config: the operator's.
        firing: the alerts that are.
        keeping: finds what keeps all mail back at a time in seconds since the epoch.

    Raises:
        OSError: the spool cannot be read.
    """
    reading = lookout.look()
    spans = (("hour", HOUR), ("day", DAY), ("week", WEEK))
    return Overview(
        reading=reading,
        checks=dict(health.judge(reading, config, firing)),
        flows=tuple(Flow(name, span, lookout.points(span)) for name, span in spans),
        providers=providers(reading, config),
        limits=limits.uses(),
        obstacles=keeping(reading.at),
    )
