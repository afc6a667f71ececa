"""A single run of `mailer-send`, once it is known to have work to do."""

import asyncio
import math
import signal
import time
from typing import TYPE_CHECKING

from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit
from mailer.cli.sending import drops
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.config.own_name import own_name
from mailer.maillog.events import MailLog
from mailer.send.heartbeat import Heartbeat
from mailer.send.run import open_runner
from mailer.send.runner import Stopped
from mailer.spool.directory import Spool

if TYPE_CHECKING:
    from mailer.events.deliverer import Deliverer


async def once(
    loaded: Loaded, spool: Spool, log: MailLog, limit: int | None, max_seconds: float | None
) -> Exit:
    """Deliver until no message is ready, SIGTERM or SIGINT arrives, or the time is up."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    began = loop.time()
    # The pickup gets at most half of the time: a flood in drop/ must not prevent all delivery.
    await drops.take_in(loaded, spool, log, stop, math.inf if max_seconds is None else max_seconds / 2)
    config = loaded.config
    hostname = own_name(config)
    grace = float(config.sending.shutdown_grace)
    heartbeat = Heartbeat(spool, log, time.time, "once")
    deliverer = _deliverer(config, spool, log)
    async with open_runner(config, spool, log, clocks(), hostname=hostname, limit=limit or 0) as runner:
        if max_seconds is not None:
            loop.call_at(began + max_seconds, runner.stop_claiming)
        try:
            await runner.once(stop, grace)
        except Stopped as stopped:
            log.error(
                "stopped: the spool cannot be used",
                error=stopped.strerror,
                to_do="see mailer doctor --offline",
            )
            return Exit.TEMPORARY
        heartbeat.set(runner.tally)
    if deliverer:
        from mailer.cli.sending.event_delivery import AFTER_A_RUN, deliver_backlog  # noqa: PLC0415 - few hosts use onEvent

        left = AFTER_A_RUN if max_seconds is None else max_seconds - (loop.time() - began)
        await deliver_backlog(deliverer, log, stop, left)
    return Exit.OK


def _deliverer(config: Config, spool: Spool, log: MailLog) -> "Deliverer | None":
    """Make the event deliverer before the run, so that it covers the run however it ends; None if off."""
    if not config.on_event.enabled:
        return None
    from mailer.cli.sending.event_delivery import deliverer  # noqa: PLC0415 - few hosts use onEvent

    return deliverer(config, spool, log)
