"""Throughput over time: recipients accepted, sent, deferred and bounced, over an hour, a day and a week."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Annotated

import msgspec

from mailer.mail import clock


class Flow(IntEnum):
    """The kinds of counts, in recipients; the value is the index in a bucket's counts."""

    ACCEPTED = 0
    SENT = 1
    DEFERRED = 2
    """Attempts that did not deliver, or whose result is unknown."""
    BOUNCED = 3
    """Recipients given up: refused or too old."""


Counts = Annotated[list[int], msgspec.Meta(min_length=len(Flow), max_length=len(Flow))]
"""Counts indexed by `Flow`."""


class Span(msgspec.Struct, frozen=True):
    """A length of time that ends now, and its resolution, both in seconds."""

    length: int
    step: int

    @property
    def buckets(self) -> int:
        return self.length // self.step


HOUR, DAY, WEEK = Span(3_600, 60), Span(86_400, 600), Span(7 * 86_400, 3_600)
SPANS = (HOUR, DAY, WEEK)


class Point(msgspec.Struct, frozen=True):
    """One bucket: when it began, in seconds since the epoch, and the recipients counted in it."""

    at: int
    accepted: int = 0
    sent: int = 0
    deferred: int = 0
    bounced: int = 0


class Series:
    """Counts over time, for three spans that end now."""

    def __init__(self, saved: Iterable[Mapping[int, Counts]] = ()) -> None:
        """Continue from the result of an earlier `saved`."""
        self._spans: dict[Span, dict[int, Counts]] = {span: {} for span in SPANS}
        for buckets, given in zip(self._spans.values(), saved, strict=False):
            buckets.update(given)

    def saved(self) -> list[dict[int, Counts]]:
        """Return all counts, for the constructor."""
        return list(self._spans.values())

    def add(self, minutes: Mapping[str, Counts], now: float) -> None:
        """Add counts by minute, each written as the first 16 characters of a ledger line's time."""
        for text, counts in minutes.items():
            if (at := _minute(text)) is None or at > now + DAY.length:
                continue  # It is not a time, or was written by a clock that was wrong.
            for span, buckets in self._spans.items():
                if at >= now - span.length - span.step:
                    bucket = buckets.setdefault(at - at % span.step, [0] * len(Flow))
                    for flow, count in enumerate(counts):
                        bucket[flow] += count
        for span, buckets in self._spans.items():
            for at in [at for at in buckets if at < now - span.length - span.step]:
                del buckets[at]

    def points(self, span: Span, now: float) -> tuple[Point, ...]:
        """Return a span's buckets up to the present one, including empty ones, the earliest first."""
        last = int(now) - int(now) % span.step
        buckets = self._spans[span]
        starts = range(last - span.length + span.step, last + 1, span.step)
        return tuple(Point(at, *buckets.get(at, ())) for at in starts)


def _minute(text: str) -> int | None:
    try:
        return int(clock.seconds(text + "Z"))
    except ValueError:
        return None
