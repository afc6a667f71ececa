"""What the operator does over HTTP: try failed mail again, pause, resume, clean up, see the configuration."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus

from mailer.config.show import effective
from mailer.config.units import seconds_typed
from mailer.maillog.events import Level
from mailer.monitor import guard
from mailer.monitor.exchange import Answer, Asked, Refusal, Route, json
from mailer.monitor.service import Service
from mailer.spool import words
from mailer.spool.entry import Corrupt
from mailer.spool.ids import arrival
from mailer.spool.layout import SPOOL_WIDE, Place, Spot
from mailer.spool.locked import Missed, Unsafe
from mailer.spool.run.operate import Operator, Refused
from mailer.spool.scan import spots
from mailer.spool.state import clock_guard
from mailer.spool.state.pause import is_paused, pause, resume
from mailer.spool.state.provider_state import end_pauses
from mailer.spool.view.inspect import recipients_of

_PAUSE = 10.0
"""Seconds between two `retry_failed` of callers without the token."""
_BY = "admin request"
"""Who did it, for journals and the ledger; HTTP does not say whose program asked."""


def routes(service: Service) -> tuple[Route, ...]:
    admin = _Admin(service)
    return (
        # Callers of the Go relay know no token, and this only makes due what waits. A token that the operator
        # set is demanded for everything.
        Route("POST", "/admin/retry-failed", admin.retry_failed, admin=not service.config.admin_token.empty),
        Route("POST", "/admin/pause", admin.pause, admin=True),
        Route("POST", "/admin/resume", admin.resume, admin=True),
        Route("POST", "/admin/clean-old-emails", admin.clean_old_emails, admin=True),
        Route("GET", "/admin/config", admin.config, admin=True),
    )


class _Admin:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._retried = -_PAUSE
        """When `retry_failed` last began, monotonic seconds."""
        self._at_work = asyncio.Lock()
        """One walk over the spool at a time: a thousand requests at once find it done after the first."""

    async def retry_failed(self, asked: Asked) -> Answer:
        """Requeue what failed, make what waits for its time due, and start a run.

        Asked again, there is nothing left to requeue; recipients that have the mail are never tried again,
        and those that were refused only when nobody else of their message waits. Without the token it is done
        once in `_PAUSE` seconds: every user of this host may ask.
        """
        now = asyncio.get_running_loop().time()
        if now - self._retried < _PAUSE and not guard.is_authorised(asked, self._service.token):
            return _done(
                f"done {words.duration(now - self._retried)} ago; ask again in {words.duration(_PAUSE)}"
            )
        self._retried = now
        await asyncio.to_thread(self._end_pauses)
        failed = await self._each(Place.FAILED, "requeued", self._retry)
        deferred = await self._each(Place.RETRY, "requeued", self._retry)
        await self._run()
        when = "once the pause ends" if is_paused(self._service.spool) else "now"
        what = f"{words.count(failed, 'failed message')} and {words.count(deferred, 'deferred message')}"
        return _done(f"{what} will be tried {when}")

    async def pause(self, asked: Asked) -> Answer:
        service = self._service
        reason = asked.query.get("reason", "")
        if await asyncio.to_thread(pause, service.spool, service.clock(), _BY, reason):
            service.log.message("paused", id="", by=_BY, reason=reason)
        return _done("runners claim nothing until POST /admin/resume; mail is still accepted")

    async def resume(self, _: Asked) -> Answer:
        if await asyncio.to_thread(resume, self._service.spool):
            self._service.log.message("resumed", id="", by=_BY)
        await self._run()
        return _done("runners work again")

    async def clean_old_emails(self, asked: Asked) -> Answer:
        """Delete from `failed/` what arrived longer ago than `olderThan`, or else `archiveMaxAge`."""
        asked_for = asked.query.get("olderThan")
        try:
            age = float(seconds_typed(asked_for)) if asked_for else 0.0
        except ValueError:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, 'olderThan is a duration such as "12h", "30d", "4w"'
            ) from None
        age = age or float(self._service.config.archive_max_age)
        if doubt := await asyncio.to_thread(self._service.doubt):
            raise Refusal(HTTPStatus.CONFLICT, clock_guard.describe(doubt))
        limit = self._service.clock() - age
        removed = await self._each(
            Place.FAILED, "removed", Operator.remove, lambda spot: arrival(spot.name) < limit
        )
        return _done(
            f"{words.count(removed, 'failed message')} deleted that arrived over {words.duration(age)} ago"
        )

    async def config(self, _: Asked) -> Answer:
        return json(effective(self._service.config))

    async def _run(self) -> None:
        try:
            await self._service.runs.start()
        except OSError as error:
            text = f"it is done, and the next run will see it; but none can be started now: {error.strerror}"
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, text) from error

    def _end_pauses(self) -> None:
        """Have paused providers tried with it; a state that cannot be written stops nothing else."""
        with contextlib.suppress(OSError):
            end_pauses(self._service.spool, datetime.fromtimestamp(self._service.clock(), UTC))

    def _retry(self, operator: Operator, spot: Spot) -> None:
        operator.hasten(spot, self._service.clock())

    async def _each(
        self,
        place: Place,
        event: str,
        act: Callable[[Operator, Spot], None],
        chosen: Callable[[Spot], bool] = lambda _: True,
    ) -> int:
        """Do something to every message of a place; return to how many it was done.

        A client that leaves does not stop it. Raises OSError: the spool cannot be worked with.
        """

        def walk() -> int:
            operator = Operator(self._service.spool, _BY)
            return sum(self._do(operator, spot, event, act) for spot in self._in(place) if chosen(spot))

        async def alone() -> int:
            async with self._at_work:
                return await asyncio.to_thread(walk)

        return await asyncio.shield(asyncio.create_task(alone()))

    def _in(self, place: Place) -> Iterator[Spot]:
        return spots(self._service.spool, (place,))

    def _do(self, operator: Operator, spot: Spot, event: str, act: Callable[[Operator, Spot], None]) -> bool:
        log = self._service.log
        to = recipients_of(operator.spool, spot)
        try:
            act(operator, spot)
        except (Missed, Refused):
            return False  # Somebody else has it in hand.
        except (Corrupt, Unsafe) as error:
            log.warning("left alone", path=spot.path, reason=str(error))
            return False
        except OSError as error:
            if error.errno in SPOOL_WIDE:
                raise
            log.warning("left alone", path=spot.path, error=error.strerror)
            return False
        # Not on standard error: there may be many, and the ledger has them.
        log.message(event, id=spot.name, to=to, by=operator.name, level=Level.INFO)
        return True


def _done(text: str) -> Answer:
    return json({"status": "ok", "message": text})
