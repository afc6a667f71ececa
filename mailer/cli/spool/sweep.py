"""`mailer spool sweep`: do by hand the maintenance that a runner does before each run."""

import sys
import time

import click

from mailer.cli.clocks import clocks
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.reader import tell
from mailer.cli.setup import CommandContext, command_context
from mailer.cli.spool import records
from mailer.send.backoff import Backoff
from mailer.spool import words
from mailer.spool.due import due_buckets
from mailer.spool.idempotency import forget_old
from mailer.spool.layout import Place, Spot
from mailer.spool.run.archive import prune
from mailer.spool.run.claim import Claims, Report
from mailer.spool.run.sweep import clean_tmp, requeue_some
from mailer.spool.scan import names
from mailer.spool.state import clock_guard
from mailer.spool.state.clock_guard import ClockGuard
from mailer.spool.syscalls import boot_id


@click.command(
    epilog=examples(
        "mailer spool sweep --dry-run",
    )
)
@click.option("--dry-run", is_flag=True, help="Say what is due, and leave everything where it is.")
@json_of("requeued, removed, pruned (counts), dryRun")
@config_option
def sweep(*, dry_run: bool, as_json: bool) -> None:
    """Move due messages to the ready ones, remove what dead programs left, and copies that are too old.

    Every run of mailer-send does this; the command is for watching it.
    """
    now = time.time()
    with command_context() as context:

        def on_skip(spot: Spot, reason: str) -> None:
            context.log.warning("skipped", path=spot.path, reason=reason)

        retry = context.config.retry
        horizon = Backoff(retry.schedule, retry.max_age).horizon
        doubt = ClockGuard(context.spool, clocks()).observe()
        if doubt:
            context.log.warning(clock_guard.describe(doubt))
        if dry_run:
            count, removed, pruned = _due(context, now, horizon, scheduled=doubt is None), 0, 0
        else:
            count = _sweep(context, on_skip, now, horizon, scheduled=doubt is None)
            removed, pruned = _delete_what_is_old(context, None if doubt else now, on_skip)
    if as_json:
        record: records.Record = {"requeued": count, "removed": removed, "pruned": pruned, "dryRun": dry_run}
        tell(sys.stdout, records.encode(record))
    elif dry_run:
        tell(sys.stdout, f"{words.count(count, 'message')} due\n")
    else:
        stale = words.count(removed, "unfinished file")
        copies = f", {pruned} of sent/" if pruned else ""
        tell(sys.stdout, f"{words.count(count, 'message')} requeued, {stale}{copies} removed\n")


def _due(context: CommandContext, now: float, horizon: float, *, scheduled: bool) -> int:
    buckets = due_buckets(context.spool, now, horizon, scheduled=scheduled)
    return sum(1 for bucket in buckets for _ in names(context.spool, f"{Place.RETRY}/{bucket}"))


def _delete_what_is_old(context: CommandContext, now: float | None, on_skip: Report) -> tuple[int, int]:
    """Delete stale files of `tmp/` and old copies; return how many of each. Without a time, none is old."""
    removed = len(clean_tmp(context.spool, now, on_skip))
    if now is None:
        return removed, 0
    context.log.forget_old_days()
    forget_old(context.spool, now, context.config.idempotency_window)
    pruned = 0
    while deleted := prune(context.spool, now, context.config.archive_max_age, on_skip):
        pruned += deleted
    return removed, pruned


def _sweep(context: CommandContext, on_skip: Report, now: float, horizon: float, *, scheduled: bool) -> int:
    def on_quarantine(spot: Spot, reason: str) -> None:
        context.log.message("quarantined", id=spot.name, reason=reason)

    claims = Claims(context.spool, time.time, boot_id(), on_quarantine, on_skip)
    return sum(len(some) for some in requeue_some(context.spool, claims, now, horizon, scheduled=scheduled))
