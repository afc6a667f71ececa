"""`mailer spool sweep`, `fsck` and `trust-clock`: maintain the spool by hand."""

import sys
import time

import click

from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line, tell
from mailer.cli.setup import CommandContext, changing_context, command_context
from mailer.mail import clock
from mailer.mail.reply import printable
from mailer.send.backoff import Backoff
from mailer.spool import words
from mailer.spool.checks.fsck import findings
from mailer.spool.due import due_buckets
from mailer.spool.key_retention import forget_old
from mailer.spool.layout import Place, Spot
from mailer.spool.run.archive import prune
from mailer.spool.run.claim import Claims, Report
from mailer.spool.run.sweep import clean_tmp, requeue_some
from mailer.spool.scan import names
from mailer.spool.state import clock_guard
from mailer.spool.state.clock_guard import ClockGuard, trust
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
    with command_context() if dry_run else changing_context() as context:

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
        record = {"requeued": count, "removed": removed, "pruned": pruned, "dryRun": dry_run}
        tell(sys.stdout, json_line(record))
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


@click.command(
    "trust-clock",
    epilog=examples(
        "date -u && mailer spool trust-clock",
    ),
)
@json_of("at, doubted (true if it was)")
@config_option
def trust_clock(*, as_json: bool) -> None:
    """Say that this host's clock is right: what is too old is given up, and deleted, again.

    After the clock was set while the host was running, or when it is far ahead of the last activity in the
    spool, nothing is given up or deleted until the clock has run steadily for a while; mail is still sent.
    `mailer doctor` reports whether that is the case. `mailer-send --watch` notices this command within a
    minute.
    """
    now = clocks()
    with command_context() as context:
        doubt = trust(context.spool, now)
    at_wall = now.wall()
    if as_json:
        record = {"at": clock.rfc3339(at_wall), "doubted": doubt is not None}
        tell(sys.stdout, json_line(record))
    else:
        known = "" if doubt else "; it was not doubted"
        tell(sys.stdout, f"the clock is trusted from now on: {words.moment(at_wall)}{known}\n")


@click.command(
    epilog=examples(
        "mailer spool fsck",
        "mailer spool fsck --json | jq -r .path",
    )
)
@json_of("path, problem")
@config_option
def fsck(*, as_json: bool) -> Exit:
    """Check the whole spool, every byte of every message, and change nothing.

    It looks for stray names, wrong modes and owners, unreadable messages, contents that differ from their
    digests, messages whose journal contradicts the directory they are in, and files with several links. The
    exit code is 1 when it finds something.
    """
    found = 0
    with command_context() as context:
        for finding in findings(context.spool, time.time()):
            found += 1
            if as_json:
                sys.stdout.write(json_line({"path": finding.path, "problem": finding.problem}))
            else:
                sys.stdout.write(f"{printable(finding.path)}: {printable(finding.problem)}\n")
    sys.stderr.write(f"{words.count(found, 'finding')}\n")
    return Exit.FINDINGS if found else Exit.OK
