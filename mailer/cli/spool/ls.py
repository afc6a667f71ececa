"""`mailer spool ls`: list messages, one line each, as a stream."""

import sys
import time
from collections.abc import Collection, Iterator
from itertools import islice

import click

from mailer.cli.neighbours import all_spools
from mailer.cli.obstacles import report_drops, report_obstacles
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import json_line
from mailer.cli.setup import command_context
from mailer.cli.spool import parallel, records
from mailer.cli.spool.selection import Filter, filters
from mailer.spool import words
from mailer.spool.layout import Place
from mailer.spool.scan import QUEUE
from mailer.spool.view import story
from mailer.spool.view.inspect import Seen, Share
from mailer.spool.view.obstacles import Obstacle
from mailer.spool.view.summary import Summary, of_seen

_MAX_SORTED = 200_000
"""The most lines to sort in memory, of about 200 bytes each."""
_LINES_PER_WRITE = 16
"""With PYTHONUNBUFFERED, as in many containers, each of these is a system call. More than 4096 bytes could be
written in part when the process is stopped: see PIPE_BUF in pipe(7)."""
_STATES = {place: f"{place:7}" for place in Place}
_HEADING = f"{'ID':26} {'STATE':7} {'AGE':>4} {'SIZE':>5}  SENDER -> RECIPIENTS\n"


@click.command(
    epilog=examples(
        "mailer spool ls",
        "mailer spool ls --state retry --state failed --recipient @example.net",
        "mailer spool ls --older 1h --json | jq -r .id",
    )
)
@filters(*QUEUE, Place.SENT)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N messages.")
@json_option
@config_option
def ls(*, limit: int | None, as_json: bool, **asked: object) -> None:
    """List messages: everything that is not delivered, or what the filters choose.

    The null sender is shown as <>, and is the empty string in JSON. Messages are listed in the order of
    arrival; in a list of more than 200,000 the rest is in no particular order.

    JSON is one object a line: id, state (new cur retry hold failed corrupt sent), sender, recipients
    [{address, status (pending sent deferred bounced expired uncertain), reply}], size, received, attempts,
    next; reason if something is wrong; and, while something holds back all mail (all providers are paused,
    or sending is), keptBy and notBefore, which is null until `mailer resume`. With several hosts (mailer
    hosts), the messages of all are listed, and host is the one in whose spool a message is.
    """
    now = time.time()
    wanted = Filter(**asked)  # type: ignore[arg-type]  # click has converted them as `filters` declares
    with command_context() as context, all_spools(context) as hosts:
        keeps = report_obstacles(context.config, context.spool)
        report_drops(context.spool)

        # What holds back all mail is known of this host alone.
        def records_of(mine: Share) -> Iterator[str]:
            for each in hosts:
                for seen in wanted.select(each.spool, QUEUE, now, mine):
                    described = records.record(seen, keeps if each is hosts[0] else ())
                    yield json_line(described | {"host": each.host} if each.host else described)

        def lines_of(mine: Share) -> Iterator[str]:
            for each in hosts:
                for found in wanted.summary(each.spool, QUEUE, now, mine):
                    yield line(found, now, keeps if each is hosts[0] else (), each.host)

        processes = 1 if limit else parallel.processes_for(context.spool, wanted.states or QUEUE)
        lines = parallel.listed(records_of if as_json else lines_of, processes)
        lines = islice(_by_arrival(lines), limit)
        if not as_json and (first := next(lines, "")):
            sys.stdout.write(_HEADING + first)
        while some := "".join(islice(lines, _LINES_PER_WRITE)):
            sys.stdout.write(some)


def _by_arrival(lines: Iterator[str]) -> Iterator[str]:
    """Sort the first lines by arrival: each line, or its JSON, begins with the id, which sorts by time."""
    yield from sorted(islice(lines, _MAX_SORTED))
    yield from lines


def line(found: Seen | Summary, now: float, keeps: Collection[Obstacle] = (), host: str = "") -> str:
    """Describe a message in one line of aligned columns.

    Args:
        found: the message.
        now: seconds since the epoch.
        keeps: the obstacles that hold back all mail.
        host: the host in whose spool it is; empty: there is only one.
    """
    if (summary := found if isinstance(found, Summary) else of_seen(found)) is None:
        assert isinstance(found, Seen)
        return f"{found.id} {found.spot.place:7} {'-':>4} {'-':>5}  {story.unreadable(found)}\n"
    older, size = words.age(now - summary.received), words.size(summary.length)
    recipients = words.recipients(summary.recipients[0], summary.statuses)
    told = f"{words.address(summary.sender)} -> {recipients}"
    if situation := story.situation(summary, now, keeps):
        told = f"{told}; {situation}"
    if summary.reply:
        told = f"{told}; {words.reply(summary.reply)}"
    if host:
        told = f"[{host}] {told}"
    return f"{summary.id} {_STATES[summary.place]} {older:>4} {size:>5}  {told}\n"
