"""Answer `GET /health`, `/livez` and `/readyz`: whether mail is accepted and delivered.

The JSON is that of the Go relay, with a result for each check. The status is 503 if a check is `failing`; see
`checks` for what is judged, and for the meaning of the results.
"""

import asyncio
from errno import ESTALE
from http import HTTPStatus
from time import monotonic

from mailer.mail import clock
from mailer.maillog.totals import Totals
from mailer.monitor import hosts
from mailer.monitor.checks import Check, Status, disk_space, judge, receiver, worst
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route, json
from mailer.monitor.reading import Reading
from mailer.spool.checks.self_test import self_test
from mailer.spool.directory import Spool
from mailer.spool.hosts.lease import is_draining
from mailer.spool.layout import Place

_PROBE_EVERY = 10.0
"""Seconds between two test writes to the spool."""
_PROBE_TIMEOUT = 5.0
"""Seconds after which a test write counts as failed."""


class Probe:
    """Tests that the spool is writable, by writing a small file durably at most every ten seconds."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._result = Check(Status.OK, "")
        self._next = float("-inf")
        self._task: asyncio.Task[Check] | None = None

    async def result(self) -> Check:
        """Return the result of the last test write, starting or awaiting one if necessary."""
        if self._task is None and monotonic() < self._next:
            return self._result
        if self._task is None:
            self._task = asyncio.create_task(self._try())
            self._task.add_done_callback(self._done)
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                return await asyncio.shield(self._task)
        except TimeoutError:
            return Check(Status.FAILING, f"a write to the spool has taken over {_PROBE_TIMEOUT:g} seconds")

    async def _try(self) -> Check:
        began = monotonic()
        try:
            await asyncio.to_thread(self_test, self._spool)
        except OSError as error:
            if error.errno == ESTALE:
                return Check(
                    Status.FAILING,
                    f"the programs hold another directory open than {self._spool.path}: it was moved or "
                    "unmounted; put it back or mount it, then restart them",
                )
            return Check(Status.FAILING, f"the spool cannot be written: {error.strerror}")
        return Check(Status.OK, f"written durably in {1000 * (monotonic() - began):.1f} ms")

    def _done(self, task: asyncio.Task[Check]) -> None:
        self._task = None
        self._result = task.result()
        self._next = monotonic() + _PROBE_EVERY


def routes(context: MonitorContext) -> tuple[Route, ...]:
    probe = Probe(context.spool)

    async def health(_: Asked) -> Answer:
        checks, reading = {"spool": await probe.result()}, None
        try:
            reading = await context.reading()
        except OSError as error:
            checks["spool"] = Check(Status.FAILING, f"the spool cannot be read: {error.strerror}")
        else:
            checks |= dict(judge(reading, context.config, context.alerting.firing))
        checks |= await asyncio.to_thread(hosts.judged, context.spool, context.config, context.clock())
        return _answer(context.clock(), reading, checks)

    async def live(_: Asked) -> Answer:
        return json({"status": "ok"})

    async def ready(_: Asked) -> Answer:
        checks = {"spool": await probe.result()}
        if checks["spool"].status is Status.OK:
            draining = context.config.host != "" and await asyncio.to_thread(is_draining, context.spool)
            if draining:
                checks["host"] = Check(Status.FAILING, "this host is being taken down (mailer hosts drain)")
            reading = await context.reading()
            checks["disk_space"] = disk_space(reading, context.config)
            checks["receiver"] = receiver(reading, context.config)
        if worst(checks) is Status.FAILING:
            why = next(check.message for check in checks.values() if check.status is Status.FAILING)
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, why)
        return json({"status": "ok"})

    return (Route("GET", "/health", health), Route("GET", "/livez", live), Route("GET", "/readyz", ready))


def _answer(now: float, reading: Reading | None, checks: dict[str, Check]) -> Answer:
    status = worst(checks)
    told = {
        "status": status,
        "timestamp": clock.rfc3339(now),
        "details": details(reading) if reading else {},
        "checks": checks,
    }
    return json(told, HTTPStatus.SERVICE_UNAVAILABLE if status is Status.FAILING else HTTPStatus.OK)


def details(reading: Reading) -> dict[str, float | None]:
    """Return the numbers that the Go relay returned; None: the filesystem does not say."""
    totals = reading.totals
    return {
        "disk_space_available_mb": None if reading.free is None else reading.free // 2**20,
        "queued_emails": reading.queue.waiting,
        "failed_emails": reading.queue[Place.FAILED].count,
        "total_emails_processed": totals.delivered + totals.failed,
        "success_rate": success_rate(totals),
    }


def success_rate(totals: Totals) -> float:
    """Return the percentage of finished messages delivered to all recipients; 100 if there are none."""
    ended = totals.delivered + totals.failed
    return round(100 * totals.delivered / ended, 2) if ended else 100.0
