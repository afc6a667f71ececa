"""Collect the data that the status page and `mailer top` show, as plain values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailer.config.model import Config
from mailer.maillog.series import DAY, HOUR, WEEK, Point, Span
from mailer.monitor import hosts
from mailer.monitor.checks import Check, Status, judge, worst
from mailer.monitor.limits import LimitsView, Use
from mailer.monitor.neighbours import HostQueue, Neighbours
from mailer.monitor.providers import Provider, providers
from mailer.monitor.queue import Snapshot, merged
from mailer.monitor.reading import Lookout, Reading
from mailer.spool import words
from mailer.spool.layout import Place
from mailer.spool.view.obstacles import Obstacle, next_attempt

MEANINGS = {
    Place.NEW: "ready to be sent",
    Place.CUR: "claimed by a runner",
    Place.RETRY: "will be tried again",
    Place.HOLD: "kept back until it is released",
    Place.FAILED: "given up, and yours to decide",
    Place.CORRUPT: "unreadable, never sent",
}
"""The states of the queue, in the order of display, with their meaning."""

Keeping = Callable[[float], tuple[Obstacle, ...]]

AT_REST = {Place.HOLD: "held", Place.FAILED: "given up", Place.CORRUPT: "unreadable"}


@dataclass(frozen=True, slots=True)
class Flow:
    """The number of recipients accepted, sent, deferred and bounced over one span of time."""

    name: str
    span: Span
    points: tuple[Point, ...]

    @property
    def sums(self) -> Point:
        """The sums over the whole span."""
        return Point(
            self.points[0].at,
            sum(point.accepted for point in self.points),
            sum(point.sent for point in self.points),
            sum(point.deferred for point in self.points),
            sum(point.bounced for point in self.points),
        )


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the whole system at one time."""

    reading: Reading
    checks: dict[str, Check]
    flows: tuple[Flow, ...]
    providers: tuple[Provider, ...]
    limits: tuple[Use, ...]
    obstacles: tuple[Obstacle, ...]
    """Reasons why no mail at all is sent."""
    hosts: tuple[HostQueue, ...]
    """The queue of each host that shares `spoolDir`, this one's first; empty: there is only one."""
    queue: Snapshot
    """The queue, of all hosts together."""

    @property
    def status(self) -> Status:
        return worst(self.checks)

    @property
    def complaints(self) -> Sequence[str]:
        """The messages of failing and degraded checks, the worst first."""
        found = [check for check in self.checks.values() if check.status is not Status.OK]
        found.sort(key=lambda check: check.status is not Status.FAILING)
        return [check.message for check in found]

    @property
    def in_short(self) -> str:
        """The number of messages in the queue, and of those that wait for the operator, as text."""
        queue = self.queue
        on_the_way = f"{words.count(queue.waiting, 'message')} on the way" if queue.waiting else ""
        at_rest = (f"{queue[place].count:,} {said}" for place, said in AT_REST.items() if queue[place].count)
        return ", ".join(filter(None, (on_the_way, *at_rest))) or "nothing waits"

    @property
    def next_due(self) -> str:
        """When deferred mail is tried next, and how many messages then, as a sentence."""
        scheduled = self.queue.due
        if not scheduled:
            return "Nothing waits for a time to be tried again."
        due, count = scheduled[0]
        expected = next_attempt(due, self.obstacles).words(self.reading.at)
        return f"Of those to be tried again, {words.count(count, 'message')} {expected}."


def overview(
    lookout: Lookout,
    neighbours: Neighbours,
    limits: LimitsView,
    config: Config,
    firing: frozenset[str],
    keeping: Keeping,
) -> Overview:
    """Collect everything, in the caller's thread.

    Args:
        lookout: reads this host's spool.
        neighbours: read those of the others.
        limits: counts the use of rate limits.
        config: the configuration.
        firing: the names of firing alerts.
        keeping: returns the reasons why no mail is sent at a time in seconds since the epoch.

    Raises:
        OSError: the spool cannot be read.
    """
    reading = lookout.look()
    each_host = _hosts(reading, neighbours)
    spans = (("hour", HOUR), ("day", DAY), ("week", WEEK))
    return Overview(
        reading=reading,
        checks={
            **dict(judge(reading, config, firing)),
            **hosts.judged(neighbours.own.spool, config, reading.at),
        },
        flows=tuple(Flow(name, span, lookout.points(span)) for name, span in spans),
        providers=providers(reading, config),
        limits=limits.uses(),
        obstacles=keeping(reading.at),
        hosts=each_host,
        queue=merged(each.queue for each in each_host) if each_host else reading.queue,
    )


def _hosts(reading: Reading, neighbours: Neighbours) -> tuple[HostQueue, ...]:
    host = neighbours.own.host
    return (HostQueue(host, reading.queue), *neighbours.queues()) if host else ()
