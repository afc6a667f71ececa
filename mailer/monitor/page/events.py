"""Serve `/events`: notify open pages of changes by server-sent events; the pages then fetch themselves again.

One reading serves all pages, and none is made while no page listens.
"""

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus

from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route
from mailer.monitor.page.login import Door
from mailer.monitor.reading import Reading

_KIND = "text/event-stream"
_MAX_LISTENERS = 64
"""The most pages that may listen; hidden pages do not."""
_EVERY = 2.0
"""Seconds between two readings, and so the least time between two fetches of a page."""
_KEEP_ALIVE = 15.0
"""Seconds between keep-alive comments, by which a disconnected browser is noticed."""


class _News:
    """Watches for changes while at least one page listens."""

    def __init__(self, context: MonitorContext) -> None:
        self._context = context
        self._changed = asyncio.Condition()
        self._number = 0
        self._listeners = 0
        self._watching: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        return self._listeners >= _MAX_LISTENERS

    async def listen(self) -> AsyncGenerator[bytes]:
        """Stream events until the listener disconnects."""
        self._listeners += 1
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield b"retry: 5000\n\n"
            seen = self._number
            while True:
                try:
                    async with asyncio.timeout(_KEEP_ALIVE), self._changed:
                        await self._changed.wait_for(lambda: self._number != seen)  # noqa: B023 - awaited at once
                except TimeoutError:
                    yield b": nothing new\n\n"
                else:
                    seen = self._number
                    yield b"data: %d\n\n" % seen
        finally:
            self._listeners -= 1
            if not self._listeners and self._watching is not None:
                self._watching.cancel()
                self._watching = None

    async def _watch(self) -> None:
        before: object = None
        while True:
            try:
                others = await asyncio.to_thread(self._context.neighbours.queues)
                now: object = (_essence(await self._context.reading()), others)
            except OSError as error:
                now = error.errno
            if before is not None and now != before:
                async with self._changed:
                    self._number += 1
                    self._changed.notify_all()
            before = now
            await asyncio.sleep(_EVERY)


def _essence(reading: Reading) -> object:
    """Return the parts of a reading whose change is worth a fetch: not those that change with time alone."""
    queue = reading.queue
    return (
        {place: (state.count, state.oldest) for place, state in queue.states.items()},
        queue.due,
        reading.totals,
        reading.pause,
        reading.providers,
        reading.ledger_trouble,
    )


def routes(context: MonitorContext, door: Door) -> tuple[Route, ...]:
    news = _News(context)

    async def answer(asked: Asked) -> Answer:
        if news.full:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many status pages are open")
        if asked.method == "HEAD":
            return Answer(b"", _KIND)
        return Answer(news.listen(), _KIND)

    return (Route("GET", "/events", door.behind(answer)),)
