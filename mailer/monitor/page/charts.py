"""Draw throughput as inline SVG: stacked bars of recipients by outcome, and a line of accepted recipients.

A drawing has no inline styles, which the Content-Security-Policy forbids. For accessibility it has a title, a
description, and the numbers as text.
"""

from collections.abc import Iterable, Iterator

from mailer.mail.duration import duration
from mailer.maillog.series import DAY, Point, Span
from mailer.monitor.overview import Flow
from mailer.monitor.page.html import NOTHING, Markup, fill, join
from mailer.spool import words

_STEP = 10
"""Width of one bucket, in units of the drawing."""
_GAP = 2
_HEIGHT = 100

_FIGURE = """<figure class="flow">
<figcaption><h3>Last {name}</h3><span class="quiet">{peak}</span></figcaption>
<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-labelledby="{name}-t {name}-d">
<title id="{name}-t">Recipients of the last {name}</title>
<desc id="{name}-d">{text}</desc>
<path class="grid" d="M0 50H{width}M0 0.5H{width}"/>
{bars}{line}<path class="axis" d="M0 99.5H{width}"/>
{tips}</svg>
<p class="scale"><span>{first}</span><span>now</span></p>
<dl class="sums">
<div><dt class="key accepted">accepted</dt><dd>{accepted}</dd></div>
<div><dt class="key sent">sent</dt><dd>{sent}</dd></div>
<div><dt class="key deferred">deferred</dt><dd>{deferred}</dd></div>
<div><dt class="key bounced">given up</dt><dd>{bounced}</dd></div>
</dl>
</figure>
"""


def figure(flow: Flow) -> Markup:
    """Draw the chart of one span of time."""
    points, sums = flow.points, flow.sums
    most = max((max(_stacked(point), point.accepted) for point in points), default=0)
    numbers = {name: f"{getattr(sums, name):,}" for name in ("accepted", "sent", "deferred", "bounced")}
    return fill(
        _FIGURE,
        name=flow.name,
        peak=f"at most {most:,} in {duration(flow.span.step)}" if most else "nothing",
        width=_STEP * len(points),
        height=_HEIGHT,
        text=_in_words(sums),
        bars=join(_bars(points, most)) if most else NOTHING,
        line=_line(points, most) if most else NOTHING,
        tips=join(_tips(points, flow.span)),
        first=f"{words.age(flow.span.length)} ago",
        **numbers,
    )


def _stacked(point: Point) -> int:
    return point.sent + point.deferred + point.bounced


def _in_words(point: Point) -> str:
    return (
        f"{point.accepted:,} accepted, {point.sent:,} sent, {point.deferred:,} deferred, "
        f"{point.bounced:,} given up"
    )


def _bars(points: Iterable[Point], most: int) -> Iterator[Markup]:
    """Draw one path for each outcome, with a rectangle in every bucket where the count is not zero."""
    outlines: dict[str, list[str]] = {"sent": [], "deferred": [], "bounced": []}
    for number, point in enumerate(points):
        base = 0
        for name, outline in outlines.items():
            count = getattr(point, name)
            if count:
                top, bottom = (_y(value, most) for value in (base + count, base))
                left = number * _STEP + _GAP / 2
                outline.append(f"M{left:g} {bottom:g}V{top:g}h{_STEP - _GAP}V{bottom:g}z")
            base += count
    for name, outline in outlines.items():
        if outline:
            yield fill('<path class="{name}" d="{d}"/>\n', name=name, d=Markup("".join(outline)))


def _line(points: Iterable[Point], most: int) -> Markup:
    """Draw the number of accepted recipients as a step line."""
    steps = "".join(
        f"{'L' if number else 'M'}{number * _STEP} {_y(point.accepted, most):g}h{_STEP}"
        for number, point in enumerate(points)
    )
    return fill('<path class="accepted" d="{d}"/>\n', d=Markup(steps))


def _y(value: int, most: int) -> float:
    return round(_HEIGHT - 1 - (_HEIGHT - 4) * value / most, 1)


def _tips(points: Iterable[Point], span: Span) -> Iterator[Markup]:
    """Draw an invisible rectangle with a tooltip over each bucket that is not empty."""
    for number, point in enumerate(points):
        if point.accepted or _stacked(point):
            moment = words.moment(point.at)
            yield fill(
                '<rect class="tip" x="{x}" y="0" width="{w}" height="{h}"><title>{text}</title></rect>\n',
                x=number * _STEP,
                w=_STEP,
                h=_HEIGHT,
                text=f"{moment[11:16] if span.length <= DAY.length else moment[5:16]}: {_in_words(point)}",
            )
