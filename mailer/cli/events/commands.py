"""`mailer events status`, `test` and `replay`: count what is undelivered, send one event, repeat events."""

import asyncio
import sys
import time
from functools import partial

import click
import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.log import MOMENT
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import end_with_the_pipe, json_line, tell
from mailer.cli.owner import become_owner
from mailer.cli.setup import command_context, configuration
from mailer.config.checks import refuse_to_send
from mailer.config.model import Config
from mailer.config.problem import ConfigError
from mailer.events import backlog, store
from mailer.events.event import GAP
from mailer.mail import clock
from mailer.mail.reply import printable
from mailer.spool.directory import Spool
from mailer.spool.layout import LOG
from mailer.spool.words import moment_of

_MAX_COUNTED = 10_000
"""The most events to count; a larger backlog is shown as this number "or more"."""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of event delivery. Times are written as in the ledger, and empty if unknown."""

    enabled: bool
    began: bool
    """Whether there is a cursor, because `mailer-send` has run since `onEvent` was set."""
    waiting: int
    """The number of undelivered events, at most 10,000."""
    waiting_since: str
    """When the first undelivered event happened."""
    lag: float
    """Seconds since `waiting_since`."""
    failures: int
    """The number of failed tries in a row."""
    error: str
    last_try: str
    next_try: str
    last_taken: str
    gap_since: str
    """The begin of the last gap: events after this time and until `gap_until` are lost."""
    gap_until: str
    losing_since: str
    """Since when the ledger cannot be written, as far as is known; events since then will be a gap."""


@click.command(epilog=examples("mailer events status", "mailer events status --json | jq .lag"))
@json_of(
    "enabled, began, waiting, waitingSince, lag (s), failures, error, lastTry, nextTry, lastTaken, gapSince, "
    "gapUntil, losingSince"
)
@config_option
def status(*, as_json: bool) -> Exit:
    """Show how many events wait for delivery, since when, and why the receiver did not take the last.

    Events are lost when the ledger cannot be written (a full disk), or is removed before they are delivered;
    the last such gap is shown. The exit code is 0 when all events are delivered or about to be, 1 while the
    receiver does not take events, or the ledger cannot be written.
    """
    end_with_the_pipe()
    with command_context() as context:
        found = status_of(context.config, context.spool, time.time())
    sys.stdout.write(json_line(found) if as_json else as_text(found))
    return Exit.FINDINGS if found.failures or found.losing_since else Exit.OK


def status_of(config: Config, spool: Spool, now: float) -> Status:
    """Read the cursor, and count the events in the ledger after it; raises OSError."""
    progress, told = store.shown(spool, now), config.on_event
    known = progress or store.Progress(cursor=store.Cursor(positions={}), looked=0.0)
    waiting, since, gap = 0, "", (known.gap_since, known.gap_until)
    directory = partial(spool.directory, LOG)
    if progress and told.enabled:
        choice = backlog.Choice(frozenset(told.events), ())
        for batch in backlog.batches(directory, progress.cursor, choice):
            since = since or (batch.events[0].at if batch.events else "")
            gaps = [(each.since, each.until) for each in batch.events if each.event == GAP]
            gap = gaps[-1] if gaps else gap
            waiting += len(batch.events)
            if waiting >= _MAX_COUNTED:
                break
    return Status(
        enabled=told.enabled,
        began=progress is not None,
        waiting=min(waiting, _MAX_COUNTED),
        waiting_since=since,
        lag=round(max(0.0, now - clock.seconds(since)), 3) if since else 0.0,
        failures=known.failures,
        error=known.error,
        last_try=_written(known.tried),
        next_try=_written(known.next_try),
        last_taken=_written(known.taken),
        gap_since=gap[0],
        gap_until=gap[1],
        losing_since=backlog.losing_since(directory) if told.enabled else "",
    )


def as_text(found: Status) -> str:
    """Return the state as text for people."""
    if not found.enabled:
        return "events are off: onEvent has neither a webhook nor a command\n"
    if not found.began:
        return "no event was delivered yet: mailer-send has not run since onEvent was set\n"
    count = f"{found.waiting:,}{' or more' if found.waiting == _MAX_COUNTED else ''}"
    lines = [
        f"{count} wait, the first since {moment_of(found.waiting_since)}"
        if found.waiting
        else "all events are delivered"
    ]
    if found.failures and not found.last_try:
        lines = [found.error]
    if found.last_taken:
        lines.append(f"last taken {moment_of(found.last_taken)}")
    if found.failures and found.last_try:
        lines.append(
            f"{found.failures} tries in a row failed, the last {moment_of(found.last_try)}: {found.error}"
        )
        lines.append(f"the next try is at {moment_of(found.next_try)}; `mailer events test` makes one now")
    if found.gap_since:
        between = f"between {moment_of(found.gap_since)} and {moment_of(found.gap_until)}"
        lines.append(f"gap: events {between} are lost: the ledger could not be written, or was removed")
    if found.losing_since:
        lines.append(
            f"events since {moment_of(found.losing_since)} are lost until the ledger can be written again: "
            "mailer doctor says why"
        )
    return "\n".join(printable(line, 2000) for line in lines) + "\n"


def _written(moment: float) -> str:
    return clock.rfc3339(moment) if moment else ""


@click.command(epilog=examples("mailer events test", "mailer events test --json"))
@json_of("taken, why, id")
@config_option
def test(*, as_json: bool) -> Exit:
    """Send the receiver one event of the kind `test`, as `mailer-send` would, and print its answer.

    Waiting events are not touched. The exit code is 0 when the receiver took the event, 69 when it did not,
    78 when `onEvent` has neither a webhook nor a command.
    """
    loaded = configuration()
    if problems := refuse_to_send(loaded):
        raise ConfigError(problems)
    told = loaded.config.on_event
    if not told.enabled:
        raise Failure(Exit.CONFIG, "onEvent has neither a webhook nor a command: set one")
    become_owner(loaded.config.spool_dir)
    from mailer.events.event import TEST, Event, unique  # noqa: PLC0415 - not needed for --help
    from mailer.events.receiver import Receiver, Verdict  # noqa: PLC0415 - as above

    at = clock.rfc3339(time.time())
    event = Event(id=unique(TEST, at), event=TEST, at=at)
    answer = asyncio.run(Receiver(told, time.time).give([event]))
    taken = answer.verdict is Verdict.TAKEN
    if as_json:
        sys.stdout.write(json_line({"taken": taken, "why": answer.why, "id": event.id}))
    else:
        sys.stdout.write(printable(f"taken: {event.id}" if taken else f"not taken: {answer.why}") + "\n")
    return Exit.OK if taken else Exit.UNAVAILABLE


@click.command(
    epilog=examples(
        "mailer events replay --since 2d",
        'mailer events replay --since "2026-11-22 21:45"',
        "mailer events replay --since 0m         skip the waiting events",
    )
)
@click.option(
    "--since",
    type=MOMENT,
    required=True,
    metavar="TIME",
    help='"30m", "12h", "1w" ago, "today", "yesterday", "2026-11-22", "2026-11-22 21:45".',
)
@json_of("since, days")
@config_option
def replay(*, since: float, as_json: bool) -> Exit:
    """Have the next run deliver all events since a time again, as far back as the ledger goes.

    Events keep their ids, so a receiver that remembers them takes none twice. Events that wait for the next
    try after a failure are also delivered by the next run.
    """
    with command_context() as context:
        if not context.config.on_event.enabled:
            raise Failure(Exit.CONFIG, "onEvent has neither a webhook nor a command: set one")
        with store.locked(context.spool, wait=True):
            cursor = backlog.since(partial(context.spool.directory, LOG), since)
            try:
                known = store.read(context.spool)
            except (OSError, store.Damaged):  # The file is replaced in any case.
                known = None
            gap = (known.gap_since, known.gap_until) if known else ("", "")
            again = store.Progress(cursor=cursor, looked=time.time(), gap_since=gap[0], gap_until=gap[1])
            store.write(context.spool, again)
    shown = clock.rfc3339(since)
    told = {"since": shown, "days": len(cursor.positions)}
    said = f"the next run delivers the events since {shown[:19].replace('T', ' ')}Z again\n"
    tell(sys.stdout, json_line(told) if as_json else said)
    return Exit.OK
