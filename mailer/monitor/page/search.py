"""Serve `/search`: find messages by address or id, newest first, within a time limit."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import monotonic

from mailer.mail.patterns import is_part_of
from mailer.maillog import search
from mailer.maillog.ledger import Line
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Route
from mailer.monitor.message_story import of_ledger
from mailer.monitor.page.html import Markup, fill, join
from mailer.monitor.page.layout import page, see_other
from mailer.monitor.page.listing import items
from mailer.monitor.page.login import Door
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.ids import is_id, is_prefix
from mailer.spool.layout import LOG
from mailer.spool.scan import QUEUE, spots
from mailer.spool.view import story
from mailer.spool.view.inspect import Seen, look
from mailer.spool.view.verdict import Outlook

_SHOWN = 50
"""Messages that are shown from the queue and from the ledger."""
_TIME_LIMIT = 2.0
"""Seconds for the ledger, enough for about a gigabyte. The queue gets half of that."""
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
_LINE = """<li><a class="id" href="/message/{id}">{id}</a> <span class="quiet">{moment}</span>
<span class="who">{sender} → {recipients}</span>
<span class="situation">{what}</span></li>
"""


@dataclass(slots=True)
class _Result:
    queued: list[Seen] = field(default_factory=list)
    told: dict[str, Line] = field(default_factory=dict)
    """The latest line of each message."""
    cut: str = ""
    """A sentence that says what was not searched; empty: everything was."""
    queue_cut: str = ""


def routes(context: MonitorContext, door: Door) -> tuple[Route, ...]:
    turns = asyncio.Semaphore(_MAX_SEARCHES)

    async def answer(asked: Asked) -> Answer:
        wanted = asked.query.get("q", "").strip()[:_MAX_TEXT]
        if not wanted:
            async with turns:
                latest = await asyncio.to_thread(recent, context.spool, context.clock(), _SHOWN)
            return page("Search", join((_HOW, Markup("<h2>Recent mail</h2>\n"), latest)))
        if is_id(wanted.upper()):
            return see_other(f"/message/{wanted.upper()}")
        async with turns:
            found = await asyncio.to_thread(_search, context.spool, wanted, context.clock())
        outlook = await asyncio.to_thread(context.outlook, context.clock())
        return page(f"Search: {wanted}", _body(wanted, found, outlook), query=wanted)

    return (Route("GET", "/search", door.behind(answer)),)


def _search(spool: Spool, wanted: str, now: float) -> _Result:
    result, prefix = _Result(), wanted.upper()
    if is_prefix(prefix) and prefix.startswith("0"):
        query = search.Query(id=prefix)
        named = (spot for spot in spots(spool, QUEUE) if spot.name.startswith(prefix))
        looked = (look(spool, spot) for spot in islice(named, _SHOWN))
        result.queued = sorted((seen for seen in looked if seen), key=lambda seen: seen.id, reverse=True)
    else:
        query = search.Query(address=wanted)
        _look_into_queue(spool, wanted, result)
    _look_into_ledger(spool, query, result, now)
    return result


def recent(spool: Spool, now: float, most: int) -> Markup:
    """Render the messages with the newest ledger lines, each with its latest line."""
    result = _Result()
    _look_into_ledger(spool, search.Query(), result, now, most)
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
            result.cut = f"These are the latest {most}; there are more."
            return
        result.told.setdefault(line.id, line)
    if not in_time():
        result.cut = (
            f"The search was cut off after {_TIME_LIMIT:g} seconds, so older messages may be missing: "
        )
        result.cut += "`mailer log` reads all of it."


def _look_into_queue(spool: Spool, wanted: str, result: _Result) -> None:
    in_time = _until(_TIME_LIMIT / 2)
    for opened, spot in enumerate(spots(spool, QUEUE)):
        if len(result.queued) == _SHOWN:
            result.queue_cut = f"These are the first {_SHOWN} that were found; there may be more."
            return
        if opened == _MAX_OPENED or not in_time():
            result.queue_cut = f"Only {opened:,} files of the queue were opened; the log has the others."
            return
        seen = look(spool, spot)
        if seen and seen.entry and _concerns(seen, wanted):
            result.queued.append(seen)


def _concerns(seen: Seen, wanted: str) -> bool:
    assert seen.entry is not None
    envelope = seen.entry.envelope
    addresses = (envelope.sender, *(recipient.address for recipient in envelope.recipients))
    return any(is_part_of(wanted, address) for address in addresses)


def _until(seconds: float) -> Callable[[], bool]:
    end = monotonic() + seconds
    return lambda: monotonic() < end


def _body(wanted: str, found: _Result, outlook: Outlook) -> Markup:
    none = Markup('<p class="quiet">None.</p>\n')
    queued = items(found.queued, outlook.now, outlook.obstacles, with_place=True) or none
    told = fill(_LINES, lines=map(_line, found.told.values())) if found.told else none
    return fill(
        _BODY,
        asked=wanted,
        queued=(queued, _note(found.queue_cut)),
        told=(told, _note(found.cut)),
    )


def _note(text: str) -> Markup:
    return fill('<p class="notice degraded">{text}</p>\n', text=text) if text else Markup("")


def _line(line: Line) -> Markup:
    first = words.address(line.to[0]) if line.to else ""
    more = f" +{len(line.to) - 1}" if len(line.to) > 1 else ""
    return fill(
        _LINE,
        id=line.id,
        moment=words.moment_of(line.at),
        sender="" if line.sender is None else words.address(line.sender),
        recipients=first + more,
        what=story.what(of_ledger(line)),
    )
