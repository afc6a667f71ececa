"""`/message/ID/content`: show the content of a message, if `showContent` is set.

The HTML part is a separate document, shown in a frame in which no script runs, nothing is loaded and no link
can be followed. The page offers no download; `mailer spool show --raw` prints every octet to users who may
read the spool's files.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from itertools import islice

from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route
from mailer.monitor.page.actions import BY
from mailer.monitor.page.html import NOTHING, Markup, fill, join
from mailer.monitor.page.layout import HTML, POLICY, page
from mailer.monitor.page.login import Door
from mailer.monitor.page.mime import MAX_READ, Content, Part, read
from mailer.monitor.page.sanitised import POLICY as FRAME_POLICY
from mailer.monitor.page.sanitised import sanitised
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.ids import is_id
from mailer.spool.view.inspect import View

_LINES = 5000
"""Lines of a text that are shown."""
_PIECE = 400
"""Characters of one value of `fill`, which cuts values at 4,000; an escaped character takes ten at most."""
_MAIN = frozenset({"subject", "from", "to", "cc", "reply-to", "date", "message-id", "sender"})
_HIDDEN = (
    "the content of messages is not shown here: set showContent to true in the configuration, or type "
    "mailer spool show --raw ID"
)

_BODY = """<h1>Content of the message</h1>
<p><a class="id" href="/message/{id}">{id}</a></p>
{notes}<section>
<dl class="facts">
{main}</dl>
</section>
{text}{html}{others}<details>
<summary>All {count} header fields</summary>
<dl class="facts">
{fields}</dl>
</details>
"""
_FIELD = "<div><dt>{name}</dt><dd>{value}</dd></div>\n"
_TEXT = '<section>\n<h2>Text</h2>\n{cut}<pre class="text">{lines}</pre>\n</section>\n'
_FRAME = (
    "<section>\n<h2>HTML</h2>\n"
    '<p class="quiet">Without images, styles and scripts. Links are inactive and show their address.</p>\n'
    '<iframe class="html" sandbox="" referrerpolicy="no-referrer" title="The HTML part" '
    'src="/message/{id}/content/html"></iframe>\n</section>\n'
)
_OTHERS = """<section>
<h2>Other parts</h2>
<ul>
{items}</ul>
</section>
"""
_OTHER = '<li>{name} <span class="quiet">{kind}, {size}</span></li>\n'


def routes(context: MonitorContext, door: Door) -> tuple[Route, ...]:
    # One message at a time, because one takes some megabytes and, at worst, a third of a second.
    turn = asyncio.Lock()

    async def read_it(asked: Asked) -> Content:
        message_id = asked.parts["id"]
        if not is_id(message_id):
            raise Refusal(HTTPStatus.BAD_REQUEST, "that is not a message id")
        if not context.config.show_content:
            raise Refusal(HTTPStatus.FORBIDDEN, _HIDDEN)
        async with turn:
            return await asyncio.to_thread(_read, context.spool, message_id)

    async def show(asked: Asked) -> Answer:
        content, message_id = await read_it(asked), asked.parts["id"]
        context.log.message("viewed", id=message_id, by=BY)
        body = await asyncio.to_thread(_body, message_id, content)
        policy = ("Content-Security-Policy", f"{POLICY}; frame-src 'self'")
        return page(message_id, body, headers=(policy,))

    async def show_html(asked: Asked) -> Answer:
        content = await read_it(asked)
        if content.html is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "it has no HTML part")
        context.log.message("viewed", id=asked.parts["id"], by=BY, reason="the HTML part")
        async with turn:
            document = await asyncio.to_thread(sanitised, content.html)
        return Answer(document, HTML, headers=(("Content-Security-Policy", FRAME_POLICY),))

    path = "/message/{id}/content"
    return (
        Route("GET", path, door.behind(show)),
        Route("GET", f"{path}/html", door.behind(show_html)),
    )


def _read(spool: Spool, message_id: str) -> Content:
    try:
        found = View.find(spool, message_id)
        if found is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "it is no longer in the spool")
        with found as view:
            entry = view.entry()
            return read(view.read(entry, 0, MAX_READ), entry.length)
    except Corrupt as error:
        raise Refusal(HTTPStatus.CONFLICT, f"it cannot be read: {error}") from error
    except TimeoutError as error:
        raise Refusal(HTTPStatus.CONFLICT, f"{error}: try again") from error


def _body(message_id: str, content: Content) -> Markup:
    main = [(name, value) for name, value in content.fields if name.strip().lower() in _MAIN]
    return fill(
        _BODY,
        id=message_id,
        notes=(fill('<p class="notice degraded">{note}</p>\n', note=each) for each in content.notes),
        main=_fields(main),
        text=_text(content.text),
        html=NOTHING if content.html is None else fill(_FRAME, id=message_id),
        others=_others(content.others),
        count=str(len(content.fields)),
        fields=_fields(content.fields),
    )


def _fields(fields: Iterable[tuple[str, str]]) -> Markup:
    return join(fill(_FIELD, name=name, value=_pieces(value)) for name, value in fields)


def _text(text: str | None) -> Markup:
    if text is None:
        return NOTHING
    lines = text.expandtabs(4).splitlines()
    cut = fill("<p>Only the first {most} lines are shown.</p>\n", most=f"{_LINES:,}")
    return fill(
        _TEXT,
        cut=cut if len(lines) > _LINES else NOTHING,
        lines=(fill("{line}\n", line=_pieces(line)) for line in islice(lines, _LINES)),
    )


def _pieces(text: str) -> Iterable[str]:
    """Split a long value, so that `fill` inserts all of it."""
    return (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))


def _others(others: tuple[Part, ...]) -> Markup:
    if not others:
        return NOTHING
    items = (
        fill(
            _OTHER,
            name=part.name or "without a name",
            kind=part.kind,
            size=f"{'about' if part.whole else 'more than'} {words.size(part.size)}",
        )
        for part in others
    )
    return fill(_OTHERS, items=items)
