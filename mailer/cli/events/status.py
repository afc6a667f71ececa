"""`mailer events status`: how much waits to be told, since when, and why."""

import sys
import time
from functools import partial

import click
import msgspec

from mailer.cli.exits import Exit
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line
from mailer.cli.wire import end_with_the_pipe, workplace
from mailer.config.model import Config
from mailer.events import backlog, store
from mailer.mail import clock
from mailer.mail.reply import printable
from mailer.spool.layout import LOG, Spool

_MOST = 10_000
"""Events that are counted: more is not told apart."""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How it goes; times as the ledger writes them, empty when there is none."""

    enabled: bool
    began: bool
    """The ledger's place is known: `mailer-send` has run since `onEvent` was set."""
    waiting: int
    """Events, 10,000 at most."""
    waiting_since: str
    """When the first of them happened."""
    lag: float
    """Seconds since then."""
    failures: int
    """In a row."""
    error: str
    last_try: str
    next_try: str
    last_taken: str


@click.command(epilog=examples("mailer events status", "mailer events status --json | jq .lag"))
@json_of("enabled, began, waiting, waitingSince, lag (s), failures, error, lastTry, nextTry, lastTaken")
@config_option
def status(*, as_json: bool) -> Exit:
    """Show how many events wait to be told, since when, and why the receiver did not take the last.

    Exit code 0 when all is told or about to be, 1 while the receiver does not take events.
    """
    end_with_the_pipe()
    with workplace() as at:
        found = status_of(at.config, at.spool, time.time())
    sys.stdout.write(json_line(found) if as_json else as_text(found))
    return Exit.FINDINGS if found.failures else Exit.OK


def status_of(config: Config, spool: Spool, now: float) -> Status:
    """Read the cursor, and the ledger from there on; raises OSError."""
    progress, told = store.read(spool), config.on_event
    waiting, since = 0, ""
    if progress and told.enabled:
        choice = backlog.Choice(frozenset(told.events), ())
        for batch in backlog.batches(partial(spool.directory, LOG), progress.cursor, choice):
            since = since or (batch.events[0].at if batch.events else "")
            waiting += len(batch.events)
            if waiting >= _MOST:
                break
    known = progress or store.Progress(cursor=store.Cursor(positions={}), looked=0.0)
    return Status(
        enabled=told.enabled,
        began=progress is not None,
        waiting=min(waiting, _MOST),
        waiting_since=since,
        lag=round(max(0.0, now - clock.seconds(since)), 3) if since else 0.0,
        failures=known.failures,
        error=known.error,
        last_try=_written(known.tried),
        next_try=_written(known.next_try),
        last_taken=_written(known.taken),
    )


def as_text(found: Status) -> str:
    """Say it in words."""
    if not found.enabled:
        return "nobody is told: onEvent has neither a webhook nor a command\n"
    if not found.began:
        return "nothing was told yet: mailer-send has not run since onEvent was set\n"
    count = f"{found.waiting:,}{' or more' if found.waiting == _MOST else ''}"
    lines = [
        f"{count} wait, the first since {_second(found.waiting_since)}" if found.waiting else "all is told"
    ]
    if found.last_taken:
        lines.append(f"last taken {_second(found.last_taken)}")
    if found.failures:
        lines.append(
            f"{found.failures} tries in a row failed, the last {_second(found.last_try)}: {found.error}"
        )
        lines.append(f"the next try is at {_second(found.next_try)}; `mailer events test` makes one now")
    return "\n".join(printable(line, 2000) for line in lines) + "\n"


def _written(moment: float) -> str:
    return clock.rfc3339(moment) if moment else ""


def _second(moment: str) -> str:
    return moment[:19].replace("T", " ") + "Z"
