"""Serve `/`: an overview of the queue, providers, rate limits, recent mail and checks."""

import asyncio

from mailer.mail.duration import duration
from mailer.monitor.budgets import Budget
from mailer.monitor.checks import Status
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Route
from mailer.monitor.limits import Use
from mailer.monitor.overview import AT_REST, MEANINGS, Overview, overview
from mailer.monitor.page.charts import figure
from mailer.monitor.page.html import NOTHING, Markup, fill, join
from mailer.monitor.page.layout import page
from mailer.monitor.page.login import Door
from mailer.monitor.page.search import recent
from mailer.monitor.providers import Provider
from mailer.spool import words
from mailer.spool.layout import Place
from mailer.spool.view.obstacles import sentences

_MAX_LIMITS = 20
_RECENT = 10
"""Recent messages on this page; the search page shows more."""
_NONE = Markup("&ndash;")

_BODY = """<h1 class="unseen">Overview</h1>
<section id="status" data-live class="notice {status}">
<p class="verdict"><strong>{status_word}</strong>{summary}</p>
{complaints}</section>
<div class="columns">
<section id="queue" data-live>
<h2>Queue</h2>
<table class="queue">
<thead><tr><th scope="col">State</th><th scope="col" class="n">Messages</th>
<th scope="col" class="n">Oldest</th><th scope="col" class="wide">which are</th></tr></thead>
<tbody>
{states}</tbody>
</table>
<p class="quiet">{due}</p>
{hosts}</section>
<div>
<section id="providers" data-live>
<h2>Providers</h2>
{providers}{budgets}</section>
<section id="limits" data-live>
<h2>Rate limits in use</h2>
{limits}</section>
</div>
</div>
<section id="recent" data-live>
<h2>Recent mail <a class="quiet" href="/search">more</a></h2>
{recent}</section>
<section id="flows" data-live>
<h2>Recipients, by what became of them</h2>
<div class="flows">
{flows}</div>
</section>
<section id="totals" data-live>
<h2>Messages, since the ledger began</h2>
<dl class="totals">
{totals}</dl>
</section>
<details>
<summary>All checks</summary>
<table>
<tbody>
{checks}</tbody>
</table>
</details>
{logout}"""
_STATE = """<tr{class}><th scope="row"><a href="/queue/{state}">{state}</a></th><td class="n">{count}</td>
<td class="n">{oldest}</td><td class="wide quiet">{meaning}</td></tr>
"""
_LIMITS = """<table>
<thead><tr><th scope="col">Who</th><th scope="col" class="n">Hour</th>
<th scope="col" class="n">Day</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
"""
_HOSTS = """<h3>Hosts</h3>
<table>
<thead><tr><th scope="col">Host</th><th scope="col" class="n">On the way</th>
<th scope="col" class="n">Oldest</th><th scope="col" class="n">At rest</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
<p class="quiet">The queue and recent mail are those of all hosts, everything else is {host}'s.</p>
"""
_HOST = """<tr><th scope="row">{host}</th><td class="n">{waiting}</td><td class="n">{oldest}</td>
<td class="n">{rest}</td></tr>
"""
_WORDS = {Status.OK: "All is well", Status.DEGRADED: "Needs a look", Status.FAILING: "Failing"}


def routes(context: MonitorContext, door: Door) -> tuple[Route, ...]:
    async def answer(_: Asked) -> Answer:
        seen = await asyncio.to_thread(
            overview,
            context.lookout,
            context.neighbours,
            context.limits,
            context.config,
            context.alerting.firing,
            lambda now: context.outlook(context.spool, now).obstacles,
        )
        latest = await asyncio.to_thread(recent, context.neighbours, context.clock(), _RECENT)
        budgets = await asyncio.to_thread(context.budgets)
        return page("Overview", _body(seen, latest, budgets))

    return (Route("GET", "/", door.behind(answer)),)


def _body(seen: Overview, latest: Markup, budgets: tuple[Budget, ...]) -> Markup:
    reading = seen.reading
    return fill(
        _BODY,
        status=seen.status.value,
        status_word=_headline(seen),
        summary=_summary(seen),
        complaints=_list(seen.complaints),
        states=(_state(seen, place) for place in MEANINGS),
        due=f"{seen.next_due} {sentences(seen.obstacles)}",
        hosts=_hosts(seen),
        providers=_providers(seen.providers, reading.at),
        budgets=_budgets(budgets),
        limits=_limits(seen.limits),
        recent=latest,
        flows=map(figure, seen.flows),
        totals=_totals(seen),
        checks=(
            fill(
                '<tr><th scope="row">{name}</th><td><span class="dot {status}">{status}</span></td>'
                "<td>{message}</td></tr>\n",
                name=name.replace("_", " "),
                status=check.status.value,
                message=check.message,
            )
            for name, check in seen.checks.items()
        ),
        logout=Markup('<p><a href="/logout">Log out</a></p>\n'),
    )


def _headline(seen: Overview) -> str:
    """Return the headline; if all checks are OK, it mentions mail that is held or was given up."""
    queue = seen.queue
    if seen.status is Status.OK and any(queue[place].count for place in AT_REST):
        return "Sending works, and some mail waits for you"
    return _WORDS[seen.status]


def _summary(seen: Overview) -> str:
    reading = seen.reading
    ran = "no run of mailer-send is known"
    if reading.last_run is not None:
        ran = f"mailer-send last ran {duration(reading.at - reading.last_run)} ago"
    return f": {seen.in_short}; {ran}; {words.free(reading.free)} on the disk."


def _list(lines: object) -> Markup:
    assert isinstance(lines, list)
    if not lines:
        return NOTHING
    return fill("<ul>\n{items}</ul>\n", items=(fill("<li>{line}</li>\n", line=line) for line in lines))


def _state(seen: Overview, place: Place) -> Markup:
    state = seen.queue[place]
    age = state.age(seen.reading.at)
    return fill(
        _STATE,
        **{"class": Markup(' class="none"') if not state.count else NOTHING},
        state=place.value,
        count=f"{state.count:,}",
        oldest=_NONE if age is None else duration(age),
        meaning=MEANINGS[place],
    )


def _hosts(seen: Overview) -> Markup:
    """Render the queue of each host, if there are several."""
    if not seen.hosts:
        return NOTHING
    rows = (
        fill(
            _HOST,
            host=each.host,
            waiting=f"{each.queue.waiting:,}",
            oldest=duration(each.queue.waiting_age(seen.reading.at)) if each.queue.waiting else _NONE,
            rest=f"{sum(each.queue[place].count for place in AT_REST):,}",
        )
        for each in seen.hosts
    )
    return fill(_HOSTS, rows=rows, host=seen.hosts[0].host)


def _providers(providers: tuple[Provider, ...], now: float) -> Markup:
    if not providers:
        return Markup('<p class="quiet">None is configured.</p>\n')
    rows = (
        fill(
            '<li><span class="name">{name}</span> <span class="dot {kind}">{health}</span>'
            '<span class="reply">{trouble}</span></li>\n',
            name=each.name,
            kind="ok" if each.up else "failing",
            health=each.health(now),
            trouble=_trouble(each),
        )
        for each in providers
    )
    return fill('<ul class="providers">\n{rows}</ul>\n', rows=rows)


def _budgets(budgets: tuple[Budget, ...]) -> Markup:
    """Render the usage of each budget, if there is any."""
    if not budgets:
        return NOTHING
    rows = (
        fill(
            '<li><span class="name">{name}</span> <span class="dot {kind}">{used}</span></li>\n',
            name=each.name,
            kind="ok" if each.until is None else "degraded",
            used=each.words,
        )
        for each in budgets
    )
    return fill('<h3>Budgets</h3>\n<ul class="providers budgets">\n{rows}</ul>\n', rows=rows)


def _trouble(provider: Provider) -> str:
    state = provider.state
    if not state.trouble:
        return ""
    when = words.moment(state.at.timestamp()) + " " if state.at else ""
    return f"{when}{state.trouble}" if provider.up else f"{provider.words}: {when}{state.trouble}"


def _limits(uses: tuple[Use, ...]) -> Markup:
    if not uses:
        return Markup('<p class="quiet">None is in use.</p>\n')
    rows = (
        fill(
            '<tr><th scope="row">{who}{wait}</th><td class="n">{hour}</td><td class="n">{day}</td></tr>\n',
            who=use.whom,
            hour=_used(use.hour, use.per_hour),
            day=_used(use.day, use.per_day),
            wait=fill(' <span class="degraded">waits {time}</span>', time=duration(use.wait))
            if use.wait
            else NOTHING,
        )
        for use in uses[:_MAX_LIMITS]
    )
    return fill(_LIMITS, rows=rows)


def _used(used: int, most: int) -> str:
    return f"{used:,} of {most:,}" if most else f"{used:,}"


def _totals(seen: Overview) -> Markup:
    totals = seen.reading.totals
    ended = totals.delivered + totals.failed
    numbers = {
        "accepted": f"{totals.accepted:,}",
        "delivered": f"{totals.delivered:,}",
        "given up": f"{totals.failed:,}",
        "delivered of those decided": f"{100 * totals.delivered / ended:.1f} %" if ended else _NONE,
        "mean time to delivery": duration(totals.delay.mean) if totals.delay.count else _NONE,
        "refused to an application": f"{totals.rejected + totals.limited:,}",
    }
    return join(
        fill("<div><dt>{name}</dt><dd>{number}</dd></div>\n", name=name, number=number)
        for name, number in numbers.items()
    )
