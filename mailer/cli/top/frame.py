"""Lay out one frame of `mailer top`: the overview as lines that fit a terminal, without any terminal I/O."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, zip_longest
from typing import NamedTuple
from unicodedata import combining, east_asian_width

from mailer.mail.duration import duration
from mailer.mail.reply import printable
from mailer.monitor.checks import Status
from mailer.monitor.limits import Use
from mailer.monitor.overview import AT_REST, MEANINGS, Flow, Overview
from mailer.monitor.providers import Provider
from mailer.spool import words
from mailer.spool.view.obstacles import next_attempt

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#@"
_QUEUE_WIDTH = 34
"""Columns of the queue's table, when there is room for another next to it."""
_MIN_WIDTH = 78
"""Columns from which there is such room."""
_MAX_COMPLAINTS = 4
"""The most complaints to show."""
_MAX_LIMITS = 5
"""The most limits to show."""
_WORDS = {Status.OK: "all is well", Status.DEGRADED: "needs a look", Status.FAILING: "failing"}

PLAIN, TITLE, QUIET = "plain", "title", "quiet"
"""Styles in addition to those named after the status values."""


class Row(NamedTuple):
    """A line of text, and its style."""

    text: str
    style: str = PLAIN


class Size(NamedTuple):
    columns: int
    rows: int


def frame(seen: Overview, path: str, size: Size, *, unicode: bool = True) -> list[Row]:
    """Lay out an overview as lines.

    Args:
        seen: the overview.
        path: the spool's path.
        size: the terminal's size; what does not fit is left out, the least important first.
        unicode: whether the terminal can draw block characters.
    """
    blocks = _BLOCKS if unicode else _ASCII
    sections: tuple[Iterable[Row], ...] = (
        _head(seen, path, size),
        [Row("")],
        _tables(seen, size),
        [Row("")],
        (_spark(flow, size.columns, blocks) for flow in seen.flows),
        _providers(seen.providers, seen.reading.at),
        _limits(seen.limits),
        _hosts(seen),
    )
    return [Row(fit(row.text, size.columns), row.style) for row in islice(chain(*sections), size.rows)]


def fit(text: str, columns: int) -> str:
    """Cut a line to a number of terminal columns; wide East Asian characters take two."""
    if text.isascii():
        return text[:columns]
    used, kept = 0, []
    for character in text:
        used += 0 if combining(character) else 2 if east_asian_width(character) in {"W", "F"} else 1
        if used > columns:
            break
        kept.append(character)
    return "".join(kept)


def _head(seen: Overview, path: str, size: Size) -> Iterator[Row]:
    reading = seen.reading
    title, time = f"mailer {_WORDS[seen.status]}", words.moment(reading.at)
    yield Row(f"{title}{time.rjust(size.columns - len(title))}", seen.status.value)
    ran = "no run is known"
    if reading.last_run is not None:
        ran = f"last run {duration(reading.at - reading.last_run)} ago"
    yield Row(f"{seen.in_short}; {ran}; {words.free(reading.free)}; {printable(path)}", QUIET)
    if seen.queue.due:
        yield Row(seen.next_due, QUIET)
    if seen.obstacles:
        new = next_attempt(None, seen.obstacles).words(reading.at)
        yield Row(f"  New mail: {printable(new)}", Status.DEGRADED.value)
    for complaint in seen.complaints[:_MAX_COMPLAINTS]:
        yield Row(f"  {printable(complaint)}", seen.status.value)


def _tables(seen: Overview, size: Size) -> Iterator[Row]:
    """Lay out the tables of the queue and the outcomes, next to each other if there is room."""
    queue, flows = list(_queue(seen)), list(_flows(seen.flows))
    if size.columns < _MIN_WIDTH:
        yield from chain(queue, [Row("")], flows)
        return
    for left, right in zip_longest(queue, flows, fillvalue=Row("")):
        yield Row(f"{left.text:{_QUEUE_WIDTH}}{right.text}".rstrip(), left.style)


def _queue(seen: Overview) -> Iterator[Row]:
    yield Row(f"{'QUEUE':8}{'MESSAGES':>10}{'OLDEST':>9}", TITLE)
    for place in MEANINGS:
        state = seen.queue[place]
        age = state.age(seen.reading.at)
        oldest = "-" if age is None else duration(age)
        yield Row(f"{place:8}{state.count:>10,}{oldest:>9}")


def _flows(flows: Sequence[Flow]) -> Iterator[Row]:
    yield Row(f"{'LAST':6}{'ACCEPTED':>10}{'SENT':>10}{'DEFERRED':>10}{'GIVEN UP':>10}", TITLE)
    for flow in flows:
        sums = flow.sums
        yield Row(f"{flow.name:6}{sums.accepted:>10,}{sums.sent:>10,}{sums.deferred:>10,}{sums.bounced:>10,}")


def _spark(flow: Flow, columns: int, blocks: str) -> Row:
    """Draw a sparkline of what was sent over a period, as wide as fits."""
    label = f"sent, {flow.name:5}"
    room = max(1, columns - len(label) - 1)
    share = -(-len(flow.points) // room)
    sums = [sum(p.sent for p in flow.points[at : at + share]) for at in range(0, len(flow.points), share)]
    most = max(sums, default=0)
    heights = ((count * (len(blocks) - 1) + most - 1) // most if most else 0 for count in sums)
    return Row(f"{label} {''.join(blocks[height] for height in heights)}")


def _providers(providers: Sequence[Provider], now: float) -> Iterator[Row]:
    if providers:
        yield Row("")
        yield Row("PROVIDERS", TITLE)
    for each in providers:
        why = "" if each.up else f", since {each.words}: {each.state.trouble}"
        style = PLAIN if each.up else Status.FAILING.value
        yield Row(printable(f"{each.name}: {each.health(now)}{why}", 500), style)


def _limits(uses: Sequence[Use]) -> Iterator[Row]:
    if uses:
        yield Row("")
        yield Row("LIMITS IN USE", TITLE)
    for use in uses[:_MAX_LIMITS]:
        used = ", ".join(
            f"{count:,} of {most:,} {unit}"
            for count, most, unit in ((use.hour, use.per_hour, "an hour"), (use.day, use.per_day, "a day"))
            if most
        )
        waits = f", waits {duration(use.wait)}" if use.wait else ""
        yield Row(f"{use.whom}: {used}{waits}", Status.DEGRADED.value if use.wait else PLAIN)


def _hosts(seen: Overview) -> Iterator[Row]:
    """Lay out the queue of each host, if there are several; the rest of the frame is of the first."""
    if seen.hosts:
        yield Row("")
        yield Row("HOSTS", TITLE)
    for each in seen.hosts:
        queue = each.queue
        oldest = f" (oldest {duration(queue.waiting_age(seen.reading.at))})" if queue.waiting else ""
        rest = sum(queue[place].count for place in AT_REST)
        yield Row(f"{each.host}: {queue.waiting:,} on the way{oldest}, {rest:,} at rest")
