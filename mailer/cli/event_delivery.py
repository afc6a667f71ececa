"""Event delivery by `mailer-send`, which every host runs: after a run, or as long as a runner stays.

Mail never waits for them: a run tells when its own work is done, and whatever goes wrong here ends nothing.
"""

import asyncio
import random
import time
from contextlib import suppress

from mailer.config.model import Config
from mailer.events.deliverer import Deliverer
from mailer.maillog.events import MailLog
from mailer.send import defects
from mailer.spool.layout import Spool

_EVERY = 1.0
"""Seconds between looks at the ledger. *0.1 ms of processor each, with a month of days.*"""
_AFTER_TROUBLE = 60.0
AFTER_A_RUN = 50.0
"""Seconds that a run goes on for the receiver's sake: cron starts the next one in a minute."""
_LEAST = 3.0
"""The same for a run whose time is up when it has done its own work, as it may be each time."""
_LAST_WORDS = 5.0
"""Seconds to write down that the receiver was too slow."""


def deliverer(config: Config, spool: Spool, log: MailLog) -> Deliverer | None:
    """Make what tells events; None: nobody is to be told. What happens from now on will be."""
    if not config.on_event.enabled:
        return None
    made = Deliverer(config.on_event, spool, log, time.time, random.random)
    try:
        made.begin()
    except OSError as error:
        _say(log, error)
    return made


async def tell_rest(made: Deliverer, log: MailLog, stop: asyncio.Event, seconds: float) -> None:
    """Tell what there is, until it is told, not taken, or time is up.

    Args:
        made: tells.
        log: hears of trouble with the spool.
        stop: ends it at once; what is in flight is told again by the next run.
        seconds: the same, after this time; a receiver that still has a batch then has failed.
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


async def tell_on(made: Deliverer, log: MailLog) -> None:
    """Tell what there is and what comes, until cancelled."""
    while True:
        well = await _guarded(made, log)
        await asyncio.sleep(_EVERY if well else _AFTER_TROUBLE)


async def _guarded(made: Deliverer, log: MailLog) -> bool:
    """Tell once; return False after trouble of our own, which was logged."""
    try:
        await made.round()
    except OSError as error:
        _say(log, error)
        return False
    except Exception as error:  # noqa: BLE001 - a defect here must not end the mail's run
        defects.tell(log, "", error)
        return False
    return True


def _say(log: MailLog, error: OSError) -> None:
    why = error.strerror or str(error)
    file = f" ({error.filename})" if isinstance(error.filename, str) else ""
    log.error("events cannot be told: trouble with the spool", error=f"{why}{file}")
