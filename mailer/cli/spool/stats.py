"""`mailer spool stats`: count the messages in each state, without opening a file."""

import os
import sys
import time
from itertools import product

import click
import msgspec

from mailer.cli.neighbours import all_spools
from mailer.cli.obstacles import report_drops, report_obstacles
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line
from mailer.cli.setup import command_context
from mailer.cli.spool import records
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.ids import arrival
from mailer.spool.layout import Place
from mailer.spool.scan import QUEUE, spots


class Tally(msgspec.Struct):
    """The messages of one state, counted."""

    count: int = 0
    bytes: int = 0
    """The size of the files, journals included."""
    oldest: float | None = None
    """When the oldest message was received, in seconds since the epoch; None if there is none."""


@click.command(
    epilog=examples(
        "mailer spool stats",
        "mailer spool stats --json | jq .retry.count",
    )
)
@json_of("for each state count, bytes, oldest (when it came; or null)")
@config_option
def stats(*, as_json: bool) -> None:
    """Count the messages of each state, their bytes, and the age of the oldest, with several hosts of all."""
    with command_context() as context, all_spools(context) as hosts:
        report_obstacles(context.config, context.spool)
        report_drops(context.spool)
        tallies = {place: Tally() for place in QUEUE}
        for place, each in product(QUEUE, hosts):
            _count(tallies[place], each.spool, place)
    if as_json:
        described = {
            place.value: {
                "count": tally.count,
                "bytes": tally.bytes,
                "oldest": records.time_or_none(tally.oldest),
            }
            for place, tally in tallies.items()
        }
        sys.stdout.write(json_line(described))
        return
    now = time.time()
    sys.stdout.write(f"{'STATE':7} {'COUNT':>9} {'SIZE':>5} OLDEST\n")
    for place, tally in tallies.items():
        oldest = "-" if tally.oldest is None else words.age(now - tally.oldest)
        sys.stdout.write(f"{place:7} {tally.count:>9} {words.size(tally.bytes):>5} {oldest:>6}\n")


def _count(tally: Tally, spool: Spool, place: Place) -> None:
    for spot in spots(spool, (place,)):
        try:
            size = os.stat(spot.path, dir_fd=spool.root, follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
        tally.count += 1
        tally.bytes += size
        received = arrival(spot.name)
        tally.oldest = received if tally.oldest is None else min(tally.oldest, received)
