"""Admin requests over HTTP: retry or replay mail, pause, resume, delete old mail, show the configuration."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus

import msgspec

from mailer.config.key_types import seconds_typed
from mailer.config.show import effective
from mailer.mail.duration import duration
from mailer.maillog.events import Level
from mailer.monitor import guard
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route, json
from mailer.monitor.replays import Order
from mailer.spool import words
from mailer.spool.directory import SPOOL_WIDE
from mailer.spool.entry import Corrupt
from mailer.spool.ids import arrival, is_id
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import Missed, Unsafe
from mailer.spool.run.operate import Operator, Refused
from mailer.spool.scan import spots
from mailer.spool.state import clock_guard
from mailer.spool.state.pause import is_paused, pause, resume
from mailer.spool.state.provider_state import end_pauses
from mailer.spool.view.inspect import recipients_of

_PAUSE = 1800.0
"""Seconds between two `retry_failed` requests without the token. Each one has all mail tried, whatever its
schedule, which lengthens the journals; once one is too long, its mail is given up (`send.outcome_lines`).
*Mail to 1,000 recipients whose provider is down gets there with 410 requests.*"""
_BY = "admin request"
"""The actor in journals and the ledger; HTTP does not tell which program sent the request."""


def routes(context: MonitorContext) -> tuple[Route, ...]:
    admin = _Admin(context)
    return (
        # Clients written for the Go relay have no token, and this request only makes waiting mail due. If the
        # operator has set a token, it is required for every request.
        Route("POST", "/admin/retry-failed", admin.retry_failed, admin=not context.config.admin_token.empty),
        Route("POST", "/admin/pause", admin.pause, admin=True),
        Route("POST", "/admin/resume", admin.resume, admin=True),
        Route("POST", "/admin/clean-old-emails", admin.clean_old_emails, admin=True),
        Route("POST", "/admin/replay", admin.replay, admin=True),
        Route("GET", "/admin/config", admin.config, admin=True),
    )


class _Admin:
    def __init__(self, context: MonitorContext) -> None:
        self._context = context
        self._retried = -_PAUSE
        """Monotonic seconds when `retry_failed` last began."""
        self._at_work = asyncio.Lock()
        """Allows one walk over the spool at a time; concurrent requests wait and then find nothing to do."""

    async def retry_failed(self, asked: Asked) -> Answer:
        """Requeue failed mail, make deferred mail due, and start a run.

        The request is idempotent. Recipients that have the mail are never tried again, and refused ones only
        if no other recipient of the message is open. Without the token it is carried out at most once in
        `_PAUSE` seconds, because every user of this host may send it.
        """
        now = asyncio.get_running_loop().time()
        if now - self._retried < _PAUSE and not guard.is_authorised(asked, self._context.token):
            return _done(
                f"done {duration(now - self._retried)} ago; without the token (mailer monitor --link) "
                f"it is done once in {duration(_PAUSE)}"
            )
        self._retried = now
        await asyncio.to_thread(self._end_pauses)
        failed = await self._each(Place.FAILED, "requeued", self._retry)
        deferred = await self._each(Place.RETRY, "requeued", self._retry)
        await self._run()
        when = "once the pause ends" if is_paused(self._context.spool) else "now"
        what = f"{words.count(failed, 'failed message')} and {words.count(deferred, 'deferred message')}"
        return _done(f"{what} will be tried {when}")

    async def pause(self, asked: Asked) -> Answer:
        context = self._context
        reason = asked.query.get("reason", "")
        if await asyncio.to_thread(pause, context.spool, context.clock(), _BY, reason):
            context.log.message("paused", id="", by=_BY, reason=reason)
        return _done("sending is paused until POST /admin/resume; mail is still accepted")

    async def resume(self, _: Asked) -> Answer:
        if await asyncio.to_thread(resume, self._context.spool):
            self._context.log.message("resumed", id="", by=_BY)
        await self._run()
        return _done("sending is resumed")

    async def clean_old_emails(self, asked: Asked) -> Answer:
        """Delete messages in `failed/` that arrived more than `olderThan` (or `archiveMaxAge`) ago."""
        asked_for = asked.query.get("olderThan")
        try:
            age = float(seconds_typed(asked_for)) if asked_for else 0.0
        except ValueError:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, 'olderThan is a duration such as "12h", "30d", "4w"'
            ) from None
        age = age or float(self._context.config.archive_max_age)
        if doubt := await asyncio.to_thread(self._context.doubt):
            raise Refusal(HTTPStatus.CONFLICT, clock_guard.describe(doubt))
        limit = self._context.clock() - age
        removed = await self._each(
            Place.FAILED, "removed", Operator.remove, lambda spot: arrival(spot.name) < limit
        )
        return _done(
            f"{words.count(removed, 'failed message')} deleted that arrived over {duration(age)} ago"
        )

    async def replay(self, asked: Asked) -> Answer:
        """Send a message again, as a JSON object says: see `Order`.

        Once the copy is queued the answer is positive, because a client repeats a request that failed.
        """
        try:
            order = msgspec.json.decode(asked.body, type=Order)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Refusal(
                HTTPStatus.BAD_REQUEST, 'send JSON such as {"id": "01JD...", "to": ["bob@example.net"]}'
            ) from None
        if not is_id(order.id):
            raise Refusal(HTTPStatus.BAD_REQUEST, "that is not a message id")
        new = await self._context.replays.replay(order, by=_BY)
        said = f"queued as {new}"
        try:
            await self._context.runs.start()
        except OSError as error:
            said += f"; mailer-send could not be started: {error.strerror}; the next run will send it"
        return json({"status": "ok", "message": said, "id": new})

    async def config(self, _: Asked) -> Answer:
        return json(effective(self._context.config))

    async def _run(self) -> None:
        try:
            await self._context.runs.start()
        except OSError as error:
            text = f"done, but mailer-send could not be started: {error.strerror}; the next run will see it"
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, text) from error

    def _end_pauses(self) -> None:
        """Make open circuit breakers of providers half-open; failure to write that is not an error."""
        with contextlib.suppress(OSError):
            end_pauses(self._context.spool, datetime.fromtimestamp(self._context.clock(), UTC))

    def _retry(self, operator: Operator, spot: Spot) -> None:
        operator.hasten(spot, self._context.clock())

    async def _each(
        self,
        place: Place,
        event: str,
        act: Callable[[Operator, Spot], None],
        chosen: Callable[[Spot], bool] = lambda _: True,
    ) -> int:
        """Apply an action to every chosen message of a place; return the number of messages changed.

        It continues if the client disconnects. Raises OSError: the spool cannot be read or written.
        """

        def walk() -> int:
            operator = Operator(self._context.spool, _BY)
            return sum(self._do(operator, spot, event, act) for spot in self._in(place) if chosen(spot))

        async def alone() -> int:
            async with self._at_work:
                return await asyncio.to_thread(walk)

        return await asyncio.shield(asyncio.create_task(alone()))

    def _in(self, place: Place) -> Iterator[Spot]:
        return spots(self._context.spool, (place,))

    def _do(self, operator: Operator, spot: Spot, event: str, act: Callable[[Operator, Spot], None]) -> bool:
        log = self._context.log
        to = recipients_of(operator.spool, spot, waiting=True)
        try:
            act(operator, spot)
        except (Missed, Refused):
            return False  # Another process has locked or moved it.
        except (Corrupt, Unsafe) as error:
            log.warning("skipped", path=spot.path, reason=str(error))
            return False
        except OSError as error:
            if error.errno in SPOOL_WIDE:
                raise
            log.warning("skipped", path=spot.path, error=error.strerror)
            return False
        # Only to the ledger, not to standard error: there may be many.
        log.message(event, id=spot.name, to=to, by=operator.name, level=Level.INFO)
        return True


def _done(text: str) -> Answer:
    return json({"status": "ok", "message": text})
