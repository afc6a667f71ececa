"""Detect that a run has nothing to do, as most runs by cron, before expensive modules are imported.

Such a run costs a quarter of the processor time of one that imports the modules that send mail.
"""

from mailer.config.model import Config
from mailer.mail.clock import Clocks
from mailer.maillog.events import MailLog
from mailer.send.backoff import Backoff
from mailer.spool.directory import Spool
from mailer.spool.due import any_drop, any_message, days_to_prune, due_buckets, keys_to_sweep
from mailer.spool.layout import Place
from mailer.spool.state import clock_guard
from mailer.spool.state.clock_guard import ClockGuard, Doubt
from mailer.spool.state.pause import is_paused


def is_idle(config: Config, spool: Spool, log: MailLog, clocks: Clocks) -> bool:
    """Tell whether a run would find nothing to do; if so, do the housekeeping of such a run.

    Only names are looked at. What may be work counts as work: a file that a program still writes, a claim
    that another run still holds, a doubt about the clock. The run then looks closely.

    Raises:
        OSError: the spool cannot be read.
    """
    if config.on_event.enabled or is_paused(spool) or any_drop(spool.path):
        return False
    now, horizon = clocks.wall(), Backoff.of(config.retry).horizon
    if any_message(spool, Place.CUR, Place.NEW, Place.TMP) or due_buckets(spool, now, horizon):
        return False
    if days_to_prune(spool, now, float(config.archive_max_age)) or keys_to_sweep(spool, now):
        return False
    if guard(spool, clocks, log).observe():
        return False
    log.forget_old_days()
    return True


def guard(spool: Spool, clocks: Clocks, log: MailLog) -> ClockGuard:
    """Create the clock guard of a run, which logs when a doubt begins or ends; raises OSError."""

    def on_change(doubt: Doubt | None) -> None:
        if doubt:
            log.warning(clock_guard.describe(doubt))
        else:
            log.notice("the clock is believed: old messages are given up, and old copies deleted, again")

    return ClockGuard(spool, clocks, on_change)
