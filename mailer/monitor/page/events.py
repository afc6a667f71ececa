"""`/events`: tells open pages that there is news (server-sent events); they fetch what they show again.

One look serves all of them, and nobody looks while nobody listens.
"""

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus

from mailer.monitor.exchange import Answer, Asked, Refusal, Route
from mailer.monitor.page.login import Door
from mailer.monitor.reading import Reading
from mailer.monitor.service import Service

_KIND = "text/event-stream"
_MOST = 64
"""Listeners. A page that is not in sight does not listen."""
_EVERY = 2.0
"""Seconds between two looks; so a page is never fetched more often."""
_SILENCE = 15.0
"""Seconds without news after which something is sent all the same: so a browser that left is noticed."""


class _News:
    """Watches for news while somebody listens."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._changed = asyncio.Condition()
        self._number = 0
        self._listeners = 0
        self._watching: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        return self._listeners >= _MOST

    async def listen(self) -> AsyncGenerator[bytes]:
        """Stream events, until the listener leaves."""
        self._listeners += 1
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield b"retry: 5000\n\n"
            seen = self._number
            while True:
                try:
                    async with asyncio.timeout(_SILENCE), self._changed:
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
                now: object = _essence(await self._service.reading())
            except OSError as error:
                now = error.errno
            if before is not None and now != before:
                async with self._changed:
                    self._number += 1
                    self._changed.notify_all()
            before = now
            await asyncio.sleep(_EVERY)


def _essence(reading: Reading) -> object:
    """What of a reading is worth a fetch: all that does not change by itself."""
    queue = reading.queue
    return (
        {place: (state.count, state.oldest) for place, state in queue.states.items()},
        queue.due,
        reading.totals,
        reading.pause,
        reading.providers,
        reading.ledger_trouble,
    )


def routes(service: Service, door: Door) -> tuple[Route, ...]:
    news = _News(service)

    async def answer(asked: Asked) -> Answer:
        if news.full:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open to tell them all")
        if asked.method == "HEAD":
            return Answer(b"", _KIND)
        return Answer(news.listen(), _KIND)

    return (Route("GET", "/events", door.behind(answer)),)
