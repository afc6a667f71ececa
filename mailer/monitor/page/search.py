"""Serve `/search`: find messages by address or id, newest first, within a time limit."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import monotonic
from typing import NamedTuple

from mailer.mail.patterns import is_part_of
from mailer.maillog import search
from mailer.maillog.ledger import Line
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Route
from mailer.monitor.message_story import of_ledger
from mailer.monitor.neighbours import Neighbours
from mailer.monitor.page.html import Markup, fill, join
from mailer.monitor.page.layout import page, see_other
from mailer.monitor.page.listing import Listed, items
from mailer.monitor.page.login import Door
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.hosts.neighbour import Neighbour
from mailer.spool.ids import is_id, is_prefix
from mailer.spool.layout import LOG
from mailer.spool.scan import QUEUE, spots
from mailer.spool.view import story
from mailer.spool.view.inspect import Seen, look
from mailer.spool.view.verdict import Outlook

_SHOWN = 50
"""Messages that are shown from the queue and from the ledger."""
_TIME_LIMIT = 2.0
"""Seconds for the ledger of a host, enough for about a gigabyte. The queue gets half of that."""
_MAX_OPENED = 1_000
"""Files of the queue that are opened for an address; the ledger has nearly all of them anyway."""
_MAX_SEARCHES = 2
"""Concurrent searches."""
_MAX_TEXT = 320
"""Characters of a search text."""

_BODY = """<h1>{asked}</h1>
<section>
<h2>In the queue</h2>
{queued}</section>
<section>
<h2>In the log <span class="quiet">newest first</span></h2>
{told}</section>
"""
_HOW = Markup("<h1>Search</h1>\n<p>Type an address, a part of one, or a message id.</p>\n")
_LINES = """<ul class="messages">
{lines}</ul>
"""
_LINE = """<li><a class="id" href="/message/{id}">{id}</a> <span class="quiet">{moment}{where}</span>
<span class="who">{sender} → {recipients}</span>
<span class="situation">{what}</span></li>
"""


class _Logged(NamedTuple):
    """A line of a ledger."""

    line: Line
    host: str
    """Whose ledger it is; empty: there is only one host."""


@dataclass(slots=True)
class _Result:
    """What was found on one host, or on all."""

    host: str = ""
    queued: list[Listed] = field(default_factory=list)
    told: dict[str, _Logged] = field(default_factory=dict)
    """The latest line of each message, the newest first."""
    cut: str = ""
    """A sentence that says what was not searched; empty: everything was."""
    queue_cut: str = ""


def routes(context: MonitorContext, door: Door) -> tuple[Route, ...]:
    turns = asyncio.Semaphore(_MAX_SEARCHES)

    async def answer(asked: Asked) -> Answer:
        wanted = asked.query.get("q", "").strip()[:_MAX_TEXT]
        if not wanted:
            async with turns:
                latest = await asyncio.to_thread(recent, context.neighbours, context.clock(), _SHOWN)
            return page("Search", join((_HOW, Markup("<h2>Recent mail</h2>\n"), latest)))
        if is_id(wanted.upper()):
            return see_other(f"/message/{wanted.upper()}")
        async with turns:
            found = await asyncio.to_thread(_search, context.neighbours, wanted, context.clock())
        outlook = await asyncio.to_thread(context.outlook, context.spool, context.clock())
        return page(f"Search: {wanted}", _body(wanted, found, outlook, context.config.host), query=wanted)

    return (Route("GET", "/search", door.behind(answer)),)


def _search(neighbours: Neighbours, wanted: str, now: float) -> _Result:
    return _merged(neighbours.ask(lambda each: _search_host(each, wanted, now)), _SHOWN)


def _search_host(neighbour: Neighbour, wanted: str, now: float) -> _Result:
    spool, result, prefix = neighbour.spool, _Result(neighbour.host), wanted.upper()
    if is_prefix(prefix) and prefix.startswith("0"):
        query = search.Query(id=prefix)
        named = (spot for spot in spots(spool, QUEUE) if spot.name.startswith(prefix))
        looked = (look(spool, spot) for spot in islice(named, _SHOWN))
        seen = sorted((seen for seen in looked if seen), key=lambda seen: seen.id, reverse=True)
        result.queued = [Listed(each, result.host) for each in seen]
    else:
        query = search.Query(address=wanted)
        _look_into_queue(spool, wanted, result)
    _look_into_ledger(spool, query, result, now)
    return result


def _merged(results: list[_Result], most: int) -> _Result:
    """Return what was found on all hosts as one."""
    if len(results) == 1:
        return results[0]
    lines = [each for result in results for each in result.told.values()]
    lines.sort(key=lambda each: each.line.at, reverse=True)
    told: dict[str, _Logged] = {}
    for each in lines:
        told.setdefault(each.line.id, each)
    queued = [each for result in results for each in result.queued]
    cut = _newest(most) if len(told) > most else _first(result.cut for result in results)
    queue_cut = _found_first(most) if len(queued) > most else _first(result.queue_cut for result in results)
    return _Result("", queued[:most], dict(islice(told.items(), most)), cut, queue_cut)


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def recent(neighbours: Neighbours, now: float, most: int) -> Markup:
    """Render the messages with the newest ledger lines, each with its latest line."""

    def newest(neighbour: Neighbour) -> _Result:
        found = _Result(neighbour.host)
        _look_into_ledger(neighbour.spool, search.Query(), found, now, most)
        return found

    result = _merged(neighbours.ask(newest), most)
    if not result.told:
        return Markup('<p class="quiet">No mail yet.</p>\n')
    return fill(_LINES, lines=map(_line, result.told.values()))


def _look_into_ledger(
    spool: Spool, query: search.Query, result: _Result, now: float, most: int = _SHOWN
) -> None:
    in_time = _until(_TIME_LIMIT)
    directory = partial(spool.directory, LOG)
    for found in search.find(directory, query, newest_first=True, go_on=in_time, now=now):
        line = found.line
        if not line.id:
            continue  # Not about a message; for example, a refused transaction.
        if line.id not in result.told and len(result.told) == most:
            result.cut = _newest(most)
            return
        result.told.setdefault(line.id, _Logged(line, result.host))
    if not in_time():
        result.cut = (
            f"The search was cut off after {_TIME_LIMIT:g} seconds, so older messages may be missing: "
        )
        result.cut += "`mailer log` reads all of it."


def _look_into_queue(spool: Spool, wanted: str, result: _Result) -> None:
    in_time = _until(_TIME_LIMIT / 2)
    for opened, spot in enumerate(spots(spool, QUEUE)):
        if len(result.queued) == _SHOWN:
            result.queue_cut = _found_first(_SHOWN)
            return
        if opened == _MAX_OPENED or not in_time():
            result.queue_cut = f"Only {opened:,} files of the queue were opened; the log has the others."
            return
        seen = look(spool, spot)
        if seen and seen.entry and _concerns(seen, wanted):
            result.queued.append(Listed(seen, result.host))


def _concerns(seen: Seen, wanted: str) -> bool:
    assert seen.entry is not None
    envelope = seen.entry.envelope
    addresses = (envelope.sender, *(recipient.address for recipient in envelope.recipients))
    return any(is_part_of(wanted, address) for address in addresses)


def _newest(most: int) -> str:
    return f"These are the latest {most}; there are more."


def _found_first(most: int) -> str:
    return f"These are the first {most} that were found; there may be more."


def _until(seconds: float) -> Callable[[], bool]:
    end = monotonic() + seconds
    return lambda: monotonic() < end


def _body(wanted: str, found: _Result, outlook: Outlook, own: str) -> Markup:
    none = Markup('<p class="quiet">None.</p>\n')
    queued = items(found.queued, outlook.now, outlook.obstacles, own, with_place=True) or none
    told = fill(_LINES, lines=map(_line, found.told.values())) if found.told else none
    return fill(
        _BODY,
        asked=wanted,
        queued=(queued, _note(found.queue_cut)),
        told=(told, _note(found.cut)),
    )


def _note(text: str) -> Markup:
    return fill('<p class="notice degraded">{text}</p>\n', text=text) if text else Markup("")


def _line(logged: _Logged) -> Markup:
    line = logged.line
    first = words.address(line.to[0]) if line.to else ""
    more = f" +{len(line.to) - 1}" if len(line.to) > 1 else ""
    return fill(
        _LINE,
        id=line.id,
        moment=words.moment_of(line.at),
        where=f", on host {logged.host}" if logged.host else "",
        sender="" if line.sender is None else words.address(line.sender),
        recipients=first + more,
        what=story.what(of_ledger(line)),
    )
