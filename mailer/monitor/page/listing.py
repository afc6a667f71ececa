"""Serve `/queue/STATE`: list the messages of one state in pages, opening only the files that are shown."""

import asyncio
from collections.abc import Collection
from heapq import nlargest, nsmallest
from http import HTTPStatus
from itertools import chain
from typing import NamedTuple
from urllib.parse import urlencode

from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route
from mailer.monitor.overview import MEANINGS
from mailer.monitor.page.html import NOTHING, Markup, fill, join
from mailer.monitor.page.layout import page
from mailer.monitor.page.login import Door
from mailer.monitor.queue import WAITING
from mailer.spool import words
from mailer.spool.hosts.neighbour import Neighbour
from mailer.spool.ids import is_id
from mailer.spool.layout import Place, Spot
from mailer.spool.scan import spots
from mailer.spool.view import story
from mailer.spool.view.inspect import Seen, look
from mailer.spool.view.obstacles import Obstacle
from mailer.spool.view.summary import of_seen

_SHOWN = 50
"""Messages on one page."""

_BODY = """<h1>{state} <span class="quiet">{count}: {meaning}</span></h1>
{kept}<p class="tabs">{oldest} {newest}</p>
<div id="list" data-live>
{rows}</div>
<p class="tabs">{start} {more}</p>
"""
_NONE = Markup('<p class="quiet">None.</p>\n')
_TABLE = """<ul class="messages">
{items}</ul>
"""
_ITEM = """<li><a class="id" href="/message/{id}">{id}</a> <span class="quiet">{age} old, {size}{place}</span>
<span class="who">{sender} → {recipients}</span>
{situation}{reply}</li>
"""


def routes(context: MonitorContext, door: Door) -> tuple[Route, ...]:
    async def answer(asked: Asked) -> Answer:
        try:
            place = Place(asked.parts["state"])
        except ValueError:
            place = Place.TMP
        if place not in MEANINGS:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such state")
        after, newest = asked.query.get("after", ""), asked.query.get("order") == "newest"
        if after and not is_id(after):
            raise Refusal(HTTPStatus.BAD_REQUEST, "that is not a message id")
        reading, others = await context.reading(), await asyncio.to_thread(context.neighbours.queues)
        count = sum(queue[place].count for queue in (reading.queue, *(each.queue for each in others)))
        now = context.clock()
        keeps = (await asyncio.to_thread(context.outlook, context.spool, now)).obstacles
        some = await asyncio.to_thread(
            context.neighbours.ask, lambda each: _page_of(each, place, after, newest=newest)
        )
        chosen = sorted(chain(*some), key=lambda each: each.seen.id, reverse=newest)[: _SHOWN + 1]
        body = fill(
            _BODY,
            state=place.value,
            count=words.count(count, "message"),
            meaning=MEANINGS[place],
            kept=_kept(keeps) if place in WAITING else NOTHING,
            oldest=_tab("oldest first", place, current=not newest),
            newest=_tab("newest first", place, current=newest, order="newest"),
            rows=items(chosen[:_SHOWN], now, keeps, context.config.host) or _NONE,
            start=_tab("from the start", place, order="newest" if newest else "") if after else NOTHING,
            more=_more(chosen, place, newest=newest),
        )
        return page(place.value, body)

    return (Route("GET", "/queue/{state}", door.behind(answer)),)


class Listed(NamedTuple):
    """A message in a list."""

    seen: Seen
    host: str
    """In whose spool it is; empty: there is only one host."""


def _page_of(neighbour: Neighbour, place: Place, after: str, *, newest: bool) -> list[Listed]:
    """Return the messages after a given one, by arrival, and one more than is shown if there are more.

    All names of the directory are read, 0.6 us each, but only the files of these messages.
    """
    spool = neighbour.spool
    if newest:
        following = (spot for spot in spots(spool, (place,)) if not after or spot.name < after)
        chosen = nlargest(_SHOWN + 1, following, key=_name)
    else:
        chosen = nsmallest(_SHOWN + 1, (s for s in spots(spool, (place,)) if s.name > after), key=_name)
    return [Listed(seen, neighbour.host) for spot in chosen if (seen := look(spool, spot))]


def _name(spot: Spot) -> str:
    return spot.name


def _tab(text: str, place: Place, *, current: bool = False, **query: str) -> Markup:
    if current:
        return fill("<strong>{text}</strong>", text=text)
    wanted = urlencode({name: value for name, value in query.items() if value})
    target = f"/queue/{place}" + (f"?{wanted}" if wanted else "")
    return fill('<a href="{target}">{text}</a>', target=target, text=text)


def _more(chosen: list[Listed], place: Place, *, newest: bool) -> Markup:
    if len(chosen) <= _SHOWN:
        return NOTHING
    return _tab("more", place, order="newest" if newest else "", after=chosen[_SHOWN - 1].seen.id)


def _kept(keeps: Collection[Obstacle]) -> Markup:
    return join(fill('<p class="notice degraded">{said}</p>\n', said=each.said) for each in keeps)


def items(
    chosen: list[Listed], now: float, keeps: Collection[Obstacle], own: str, *, with_place: bool = False
) -> Markup:
    """Render messages in one to three lines each; empty if there are none.

    Args:
        chosen: the messages.
        now: seconds since the epoch.
        keeps: what holds back all mail of this host.
        own: this host.
        with_place: show the state of each.
    """
    if not chosen:
        return NOTHING
    # What holds back all mail is known of this host alone.
    rows = (_item(each, now, keeps if each.host == own else (), with_place=with_place) for each in chosen)
    return fill(_TABLE, items=rows)


def _item(listed: Listed, now: float, keeps: Collection[Obstacle], *, with_place: bool) -> Markup:
    seen = listed.seen
    summary = of_seen(seen)
    place = f", in {seen.spot.place}" if with_place else ""
    place += f", on host {listed.host}" if listed.host else ""
    said = story.situation(summary, now, keeps) if summary else story.unreadable(seen)
    situation = fill('<span class="situation">{said}</span>\n', said=said) if said else NOTHING
    if summary is None:
        return fill(
            '<li><a class="id" href="/message/{id}">{id}</a> <span class="quiet">{place}</span>\n'
            "{situation}</li>\n",
            id=seen.id,
            place=place,
            situation=situation,
        )
    reply = words.reply(summary.reply)
    return fill(
        _ITEM,
        id=seen.id,
        age=words.age(now - summary.received),
        size=words.size(summary.length),
        place=place,
        sender=words.address(summary.sender),
        recipients=words.recipients(summary.recipients[0], summary.statuses),
        situation=situation,
        reply=fill('<span class="reply">{reply}</span>\n', reply=reply) if reply else NOTHING,
    )
