"""`mailer top`: how things are, at a terminal, again and again."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import click

from mailer.cli.limits import uses
from mailer.cli.options import DURATION, config_option, examples
from mailer.cli.outlook import keeping
from mailer.cli.top.frame import QUIET, Row, Size, fit, frame
from mailer.cli.top.screen import Ended, Screen
from mailer.cli.wire import Workplace, end_with_the_pipe, workplace
from mailer.monitor.limits import LimitsView
from mailer.monitor.overview import Overview, overview
from mailer.monitor.reading import Lookout

_HELP = "q quits"
_SHORTEST = 0.2
"""Seconds between two looks."""
_ONCE = Size(100, 1000)
"""What a pipe has room for."""


@click.command(epilog=examples("mailer top", "mailer top --interval 5", "mailer top --once | head -3"))
@click.option(
    "--interval",
    type=DURATION,
    default="2s",
    show_default=True,
    metavar="TIME",
    help="Time between two looks: 2s, 1m; at least 0.2s.",
)
@click.option("--once", is_flag=True, help="Print it once, as plain text, as into a pipe.")
@config_option
def top(*, interval: float, once: bool) -> None:
    """Show queue, throughput, providers and rate limits, and keep that fresh; q quits.

    It reads the spool and the ledger itself: `mailer monitor` need not run.
    """
    interval = max(interval, _SHORTEST)
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    with workplace() as at:
        look = _looker(at)
        if once or not sys.stdout.isatty():
            end_with_the_pipe()
            rows = frame(look(), str(at.spool.path), _ONCE, unicode=unicode)
            sys.stdout.writelines(f"{row.text.rstrip()}\n" for row in rows)
            return
        lay_out = partial(frame, path=str(at.spool.path), unicode=unicode)
        with suppress(Ended), Screen(colour=not os.environ.get("NO_COLOR")) as screen:
            _keep_showing(screen, look, interval, lay_out)


def _looker(at: Workplace) -> Callable[[], Overview]:
    limits = LimitsView(partial(uses, at.config, at.spool, at.log))
    keeps = partial(keeping, at.config, at.spool)
    return partial(overview, Lookout(at.spool, time.time), limits, at.config, frozenset(), keeps)


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
        return before  # Not just now; the time at the top stands still.
