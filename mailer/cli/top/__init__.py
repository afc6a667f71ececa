"""`mailer top`: show queue, throughput, providers and limits on a terminal, updated periodically."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import click

from mailer.cli import limits
from mailer.cli.obstacles import current_obstacles
from mailer.cli.options import DURATION, config_option, examples, json_option
from mailer.cli.output import end_with_the_pipe, json_line
from mailer.cli.setup import CommandContext, command_context
from mailer.cli.spool.records import time_or_none
from mailer.cli.top.frame import QUIET, Row, Size, fit, frame
from mailer.cli.top.screen import Ended, Screen
from mailer.mail.clock import rfc3339
from mailer.monitor.limits import LimitsView
from mailer.monitor.neighbours import Neighbours
from mailer.monitor.overview import MEANINGS, Flow, Overview, overview
from mailer.monitor.queue import Snapshot, State
from mailer.monitor.reading import Lookout
from mailer.spool.ids import arrival

_HELP = "q quits"
_MIN_INTERVAL = 0.2
"""The shortest interval between two updates, in seconds."""
_PIPE_SIZE = Size(100, 1000)
"""The size of the output to a pipe, in columns and rows."""


@click.command(
    epilog=examples(
        "mailer top",
        "mailer top --interval 5",
        "mailer top --once | head -3",
        "mailer top --json | jq .queue",
    )
)
@click.option(
    "--interval",
    type=DURATION,
    default="2s",
    show_default=True,
    metavar="TIME",
    help="Time between two looks: 2s, 1m; at least 0.2s.",
)
@click.option("--once", is_flag=True, help="Print it once, as plain text, as into a pipe.")
@json_option
@config_option
def top(*, interval: float, once: bool, as_json: bool) -> None:
    """Show queue, throughput, providers and rate limits, and keep them up to date; q quits.

    It reads the spool and the ledger directly: `mailer monitor` need not be running.

    JSON is one object: at, status (ok degraded failing), complaints, summary, lastRun, paused, free (bytes),
    queue {state: {count, oldest}}, recipients {hour day week: {accepted, sent, deferred, bounced}},
    providers [{name, health, trouble}], limits as in `mailer limits`. What is unknown is null. With several
    hosts (mailer hosts), queue is that of all, hosts is {host: queue}, and everything else is of this host.
    """
    interval = max(interval, _MIN_INTERVAL)
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    with command_context() as context:
        look = _looker(context)
        if as_json:
            end_with_the_pipe()
            sys.stdout.write(json_line(record(look())))
            return
        if once or not sys.stdout.isatty():
            end_with_the_pipe()
            rows = frame(look(), str(context.spool.path), _PIPE_SIZE, unicode=unicode)
            sys.stdout.writelines(f"{row.text.rstrip()}\n" for row in rows)
            return
        lay_out = partial(frame, path=str(context.spool.path), unicode=unicode)
        with suppress(Ended), Screen(colour=not os.environ.get("NO_COLOR")) as screen:
            _keep_showing(screen, look, interval, lay_out)


def record(seen: Overview) -> dict[str, object]:
    """Return an overview as a record for JSON."""
    reading = seen.reading
    return {
        "at": rfc3339(reading.at),
        "status": seen.status.value,
        "complaints": seen.complaints,
        "summary": seen.in_short,
        "lastRun": time_or_none(reading.last_run),
        "paused": reading.pause is not None,
        "free": reading.free,
        "queue": _queue(seen.queue),
        "recipients": {flow.name: _sums(flow) for flow in seen.flows},
        "providers": [
            {"name": each.name, "health": each.health(reading.at), "trouble": each.state.trouble}
            for each in seen.providers
        ],
        "limits": list(map(limits.record, seen.limits)),
        **({"hosts": {each.host: _queue(each.queue) for each in seen.hosts}} if seen.hosts else {}),
    }


def _queue(queue: Snapshot) -> dict[str, object]:
    return {
        place.value: {"count": queue[place].count, "oldest": time_or_none(_oldest(queue[place]))}
        for place in MEANINGS
    }


def _oldest(state: State) -> float | None:
    return arrival(state.oldest[0].name) if state.oldest else None


def _sums(flow: Flow) -> dict[str, int]:
    sums = flow.sums
    return {
        "accepted": sums.accepted,
        "sent": sums.sent,
        "deferred": sums.deferred,
        "bounced": sums.bounced,
    }


def _looker(context: CommandContext) -> Callable[[], Overview]:
    view = LimitsView(partial(limits.uses, context.config, context.spool, context.log))
    keeps = partial(current_obstacles, context.config, context.spool)
    lookout = Lookout(context.spool, time.time)
    neighbours = Neighbours(context.spool, context.config.host, time.time)
    return partial(overview, lookout, neighbours, view, context.config, frozenset(), keeps)


def _keep_showing(
    screen: Screen, look: Callable[[], Overview], interval: float, lay_out: Callable[..., list[Row]]
) -> None:
    screen.draw([Row("mailer: reading the ledger ...", QUIET)])
    seen, next_look, key = look(), time.monotonic() + interval, ""
    while key not in {"q", "Q"}:
        size = screen.size()
        rows = lay_out(seen, size=Size(size.columns, size.rows - 1))
        rows += [Row("")] * (size.rows - 1 - len(rows))
        screen.draw([*rows, Row(fit(_HELP, size.columns), QUIET)])
        key = screen.wait(max(0.0, next_look - time.monotonic()))
        if time.monotonic() >= next_look:
            seen, next_look = _again(look, seen), time.monotonic() + interval


def _again(look: Callable[[], Overview], before: Overview) -> Overview:
    try:
        return look()
    except OSError:
        return before  # Keep the old overview, whose time at the top shows that it is old.
