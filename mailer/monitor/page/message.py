"""Serve `/message/ID`: the history of one message, its main header fields, and the actions on it."""

import asyncio
import re
from collections.abc import Container, Sequence
from http import HTTPStatus
from typing import NamedTuple

from mailer.monitor import message_story
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route
from mailer.monitor.message_story import NoStory, Story
from mailer.monitor.page.actions import ACTIONS, Action
from mailer.monitor.page.html import NOTHING, Markup, fill, join
from mailer.monitor.page.layout import page
from mailer.monitor.page.login import Door
from mailer.monitor.page.mime import decoded
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.hosts.neighbour import Neighbour
from mailer.spool.ids import is_id
from mailer.spool.layout import Spot
from mailer.spool.view import story
from mailer.spool.view.inspect import View
from mailer.spool.view.story import Step

_MAX_HEADER = 16 * 1024
"""Octets in which the fields are searched."""
_SHOWN_FIELDS = ("Subject", "From", "To", "Date", "Message-ID")
_MAX_FIELD = 500
_MAX_STEPS = 500
"""Lines of the history that are shown, the last ones. A message that is retried for five days has dozens."""

_CONTENT = (("content", "Show the content"), ("replay", "Send to another address"))
"""Links beside the actions where `showContent` is on: the last part of the path, and the label."""
_REPLAYED = (
    "It is a copy of another message, for these recipients, and a run of mailer-send has been started."
)
_WAITS = (
    "It is a copy of another message, for these recipients. mailer-send could not be started; the next run "
    "will send it."
)
_COPIED = {"replay": _REPLAYED, "replay-waits": _WAITS}
_ELSEWHERE = """<p class="notice">It is, or was, in the spool of host {host}: act on it there.</p>
"""
_MAX_VERDICT = 200
"""Lines of the verdict that are shown; a message may have 20,000 recipients."""

_BODY = """{done}<section id="story" data-live>
<h1 class="id">{id}</h1>
<p class="quiet">{title}</p>
<div class="verdict">
{verdict}</div>
{actions}</section>
<div class="columns">
<section id="steps" data-live>
<h2>What happened</h2>
{cut}<ol class="steps">
{steps}</ol>
</section>
{facts}</div>
"""
_LINK = '<a class="id" href="/message/{id}">{id}</a>'
_LIKE_AN_ID = re.compile(r"\b([0-9A-Z]{26})\b")
_STEP = """<li class="{kind}"><time datetime="{at}">{moment}</time> <span>{what}</span></li>
"""
_FACTS = """<section>
<h2>The message</h2>
<dl class="facts">
{facts}</dl>
</section>
"""
_FACT = "<div><dt>{name}</dt><dd>{value}</dd></div>\n"
_KINDS = {
    "sent": "ok",
    "deferred": "degraded",
    "uncertain": "degraded",
    "trouble": "degraded",
    "attempt": "degraded",
    "held": "degraded",
    "bounced": "failing",
    "expired": "failing",
    "quarantined": "failing",
}


def routes(context: MonitorContext, door: Door) -> tuple[Route, ...]:
    async def answer(asked: Asked) -> Answer:
        message_id = asked.parts["id"]
        if not is_id(message_id):
            raise Refusal(HTTPStatus.BAD_REQUEST, "that is not a message id")
        found = await asyncio.to_thread(_find, context, message_id)
        told = found.story
        if found.host != context.config.host:
            return page(message_id, _body(told, found.facts, _elsewhere(found.host), ours=False))
        readable = told.seen is not None and told.seen.entry is not None
        more = _CONTENT if readable and context.config.show_content else ()
        return page(message_id, _body(told, found.facts, _done(asked), more))

    return (Route("GET", "/message/{id}", door.behind(answer)),)


class _Found(NamedTuple):
    """A message on one of the hosts."""

    host: str
    story: Story
    facts: Markup


def _find(context: MonitorContext, message_id: str) -> _Found:
    """Find a message, on this host first; raises as `message_story.tell`."""

    def look(neighbour: Neighbour) -> _Found | NoStory:
        outlook = context.outlook(neighbour.spool, context.clock())
        try:
            told = message_story.tell(neighbour.spool, message_id, outlook)
        except NoStory as missing:
            return missing
        return _Found(neighbour.host, told, _facts(neighbour.spool, told))

    ours = look(context.neighbours.own)
    if isinstance(ours, _Found) and ours.story.seen:
        return ours
    # A message that was moved from one host to another is known on both.
    others = [answer for answer in context.neighbours.ask_others(look) if isinstance(answer, _Found)]
    others.sort(key=lambda found: found.story.seen is None)
    if others and (others[0].story.seen or isinstance(ours, NoStory)):
        return others[0]
    if isinstance(ours, NoStory):
        raise ours
    return ours


def _elsewhere(host: str) -> Markup:
    return fill(_ELSEWHERE, host=host)


def _done(asked: Asked) -> Markup:
    name = asked.query.get("done", "")
    text = ACTIONS[name].done if name in ACTIONS else _COPIED.get(name, "")
    return fill('<p class="notice ok" role="status">{text}</p>\n', text=text) if text else NOTHING


def _body(
    told: Story, facts: Markup, done: Markup, more: Sequence[tuple[str, str]] = (), *, ours: bool = True
) -> Markup:
    place = told.seen.spot.place if told.seen and ours else None
    possible = [action for action in ACTIONS.values() if place in action.places]
    others = {
        name for event in told.steps for name in (event.notice, event.about, event.replays) if is_id(name)
    }
    steps = story.chronicle(told.steps)
    cut = f"Only the last {_MAX_STEPS} of {len(steps):,} lines are shown."
    return fill(
        _BODY,
        done=done,
        id=told.id,
        title=told.title.removeprefix(f"{told.id} "),
        verdict=(fill("<p>{line}</p>\n", line=_linked(line, others)) for line in _verdict(told)),
        actions=_buttons(told.id, possible, more),
        cut=fill("<p>{cut}</p>\n", cut=cut) if len(steps) > _MAX_STEPS else NOTHING,
        steps=(_step(step, others) for step in steps[-_MAX_STEPS:]),
        facts=facts,
    )


def _verdict(told: Story) -> tuple[str, ...]:
    more = len(told.verdict) - _MAX_VERDICT
    if more <= 0:
        return told.verdict
    return (*told.verdict[:_MAX_VERDICT], f"... and {more:,} recipients more: `mailer spool why {told.id}`.")


def _buttons(message_id: str, actions: list[Action], more: Sequence[tuple[str, str]]) -> Markup:
    if not actions and not more:
        return NOTHING
    links = [
        fill(
            '<a class="button{kind}" href="/message/{id}/{name}">{label}</a>\n',
            kind=kind,
            id=message_id,
            name=name,
            label=label,
        )
        for name, label, kind in (
            *((name, label, "") for name, label in more),
            *((each.name, each.label, " danger" if each.dangerous else "") for each in actions),
        )
    ]
    return fill('<p class="actions">\n{links}</p>\n', links=links)


def _linked(text: str, ids: Container[str]) -> Markup:
    """Turn the given ids into links to their pages, but no others: a server's reply may contain anything."""
    pieces = _LIKE_AN_ID.split(text)
    return join(fill(_LINK if piece in ids else "{id}", id=piece) for piece in pieces)


def _step(step: Step, others: Container[str]) -> Markup:
    event = step.event
    return fill(
        _STEP,
        kind=_KINDS.get(event.event, ""),
        at=event.at,
        moment=words.moment_of(event.at),
        what=_linked(story.what(event, step), others),
    )


def _facts(spool: Spool, told: Story) -> Markup:
    """Render facts about the message itself, if its file still exists."""
    if told.seen is None or told.seen.entry is None:
        return NOTHING
    entry = told.seen.entry
    known = {**_fields(_header(spool, told.seen.spot)), **_envelope(entry)}
    return fill(_FACTS, facts=join(fill(_FACT, name=name, value=value) for name, value in known.items()))


def _envelope(entry: Entry) -> dict[str, str]:
    envelope = entry.envelope
    first = ", ".join(words.address(recipient.address) for recipient in envelope.recipients[:20])
    more = f" and {len(envelope.recipients) - 20} more" if len(envelope.recipients) > 20 else ""
    facts = {
        "envelope": f"{words.address(envelope.sender)} → {first}{more}",
        "size": f"{entry.length:,} octets",
        "submitted by": " from ".join(filter(None, (entry.block.user, entry.block.peer))),
        "attempts": str(entry.state.attempts),
    }
    return {name: value for name, value in facts.items() if value}


def _header(spool: Spool, spot: Spot) -> str:
    try:
        with View.open(spool, spot) as view:
            start = next(view.message(view.entry()), b"")[:_MAX_HEADER]
    except (FileNotFoundError, Corrupt):
        return ""
    return start.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")


def _fields(header: str) -> dict[str, str]:
    """Return the first field of each name in `_SHOWN_FIELDS`, decoded."""
    found: dict[str, str] = {}
    for line in header.replace("\r\n ", " ").replace("\r\n\t", " ").split("\r\n"):
        name, colon, value = line.partition(":")
        for shown in _SHOWN_FIELDS:
            if colon and name.strip().lower() == shown.lower():
                found.setdefault(shown, decoded(value.strip()[: 4 * _MAX_FIELD])[:_MAX_FIELD])
    return {name: found[name] for name in _SHOWN_FIELDS if name in found}
