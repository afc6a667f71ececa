"""Event delivery in `mailer-send`, which every host runs: after a run, or throughout `mailer-send --watch`.

Mail never waits for events: a run delivers them when its own work is done, and no error here ends a run.
"""

import asyncio
import random
import time
from contextlib import suppress

from mailer.config.model import Config
from mailer.events.deliverer import Deliverer
from mailer.maillog.events import MailLog
from mailer.send import defects
from mailer.spool.directory import Spool

_POLL_INTERVAL = 1.0
"""Seconds between two polls of the ledger. *A poll takes 0.1 ms of CPU with a month of daily files.*"""
_ERROR_INTERVAL = 60.0
AFTER_A_RUN = 50.0
"""Seconds into a run until which it delivers events: cron starts the next run after a minute."""
_LEAST = 3.0
"""The least seconds for events when the mail has used the run's time up, as it may in every run."""
_LAST_WORDS = 5.0
"""Seconds after the deadline in which to record that the event receiver was too slow."""


def deliverer(config: Config, spool: Spool, log: MailLog) -> Deliverer | None:
    """Make the event deliverer, with its cursor at the ledger's present end; None if `onEvent` is off."""
    if not config.on_event.enabled:
        return None
    made = Deliverer(config.on_event, spool, log, time.time, random.random)
    try:
        made.begin()
    except OSError as error:
        _log_error(log, error)
    return made


async def deliver_backlog(made: Deliverer, log: MailLog, stop: asyncio.Event, seconds: float) -> None:
    """Deliver the backlog, until it is empty, a batch is refused, or the time is up.

    Args:
        made: the deliverer.
        log: errors of the spool are logged to it.
        stop: cancels the delivery immediately; the next run repeats the batch in flight.
        seconds: the time limit; a batch that the receiver has not answered by then counts as failed.
    """
    seconds = max(_LEAST, seconds)
    made.deadline = asyncio.get_running_loop().time() + seconds
    telling, stopped = asyncio.create_task(_guarded(made, log)), asyncio.create_task(stop.wait())
    within = seconds + _LAST_WORDS
    await asyncio.wait({telling, stopped}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    for task in (telling, stopped):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def deliver_until_stopped(made: Deliverer, log: MailLog) -> None:
    """Deliver the backlog and new events, until cancelled."""
    while True:
        well = await _guarded(made, log)
        await asyncio.sleep(_POLL_INTERVAL if well else _ERROR_INTERVAL)


async def _guarded(made: Deliverer, log: MailLog) -> bool:
    """Run one round of delivery; log errors of the spool and defects, and return False after one."""
    try:
        await made.round()
    except OSError as error:
        _log_error(log, error)
        return False
    except Exception as error:  # noqa: BLE001 - a defect here must not end the run
        defects.report(log, "", error)
        return False
    return True


def _log_error(log: MailLog, error: OSError) -> None:
    why = error.strerror or str(error)
    file = f" ({error.filename})" if isinstance(error.filename, str) else ""
    log.error("events cannot be delivered: the spool cannot be used", error=f"{why}{file}")
