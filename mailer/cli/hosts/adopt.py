"""`mailer hosts adopt`: take over the mail of a host that is dead or has left."""

import asyncio
import os
import sys
import time

import click
from msgspec.structs import replace

from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit
from mailer.cli.hosts import opened, shared
from mailer.cli.lease import kept, take
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import tell
from mailer.cli.owner import acting_as_owner, become_owner
from mailer.cli.sending import drops
from mailer.cli.service import loop
from mailer.cli.setup import CommandContext, configuration, open_log, operator_name
from mailer.cli.spool.move import Moves
from mailer.cli.spool.other_spool import started_here
from mailer.cli.spool.selection import Filter
from mailer.cli.spool.verbs import Order
from mailer.config.load import Loaded
from mailer.maillog.events import Level
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.hosts.adoption import claim, mail_in, release, wait_until_quiet
from mailer.spool.hosts.epochs import Grounds
from mailer.spool.hosts.lease import LEASE, MARGIN, required

OFF = "the operator's word that it is off"
_TELL_EVERY = 10.0


@click.command(
    epilog=examples(
        "mailer hosts adopt a                    a has left (mailer hosts leave)",
        "mailer hosts adopt a --off              a is off, or cut off from the spool, for certain",
        "mailer hosts adopt a --evict-with ceph  cut a off from CephFS first",
        "mailer hosts adopt a --evict-with 'ceph -c /etc/ceph/ceph.conf --id admin'",
    )
)
@click.argument("host", metavar="HOST")
@click.option(
    "--off",
    is_flag=True,
    help="You have made sure that HOST is off, or can reach neither the spool nor a mail server.",
)
@click.option(
    "--evict-with",
    "ceph",
    metavar="COMMAND",
    help="Have CephFS evict the client of HOST, with this command for ceph(8). No shell is involved.",
)
@json_of("for each message: id, action, state (where it was), result, reason, dryRun")
@config_option
def adopt(host: str, *, off: bool, ceph: str | None, as_json: bool) -> Exit:
    """Take over the mail of a host that is dead or has left: move it into the spool of this host.

    A host that still runs must be kept out first: make sure that it is off (--off), or evict it from CephFS
    (--evict-with). Its own programs stop by themselves within 35 seconds once they cannot renew their lease,
    and this command waits for that. A message of which the final reply is missing becomes uncertain, as when
    a runner dies, so that at most the messages of the transactions under way are delivered twice.

    After an interruption, type the same again. The exit code is 75 when some mail could not be moved
    for now, and 65 when some is damaged and stays there.
    """
    if off and ceph:
        raise click.UsageError("Either --off or --evict-with.")
    loaded = configuration()
    config = shared(loaded.config)
    if host == config.host:
        raise click.UsageError(f"{host} is this host: see `mailer hosts join`.")
    evidence = OFF if off else ""
    if ceph:
        from mailer.cli.hosts.eviction import evicted  # noqa: PLC0415 - CephFS alone

        with acting_as_owner(config.spool_dir), opened(config) as (hosts, machine):
            required(hosts, machine, config.spool_dir)
        # Run ceph as the user who gave the command, because that user has its keys.
        evidence = evicted(ceph, config, host)
    operator = operator_name(os.environ)
    assert config.shared_dir is not None
    drops.prepare(config.shared_dir / host)
    become_owner(config.spool_dir)
    with opened(config) as (hosts, machine):
        required(hosts, machine, config.spool_dir)
        epoch = claim(hosts, host, machine, Grounds(operator, evidence), time.time())
        with Spool.open(config.shared_dir / host) as spool:
            quiet(spool, host)
            # Another host may adopt the same spool, if this one is declared dead meanwhile.
            lease = take(config, spool, host)
            with kept(lease, open_log(spool, Level.WARNING)):
                code = _take_over(loaded, spool, operator, as_json=as_json)
            lease.forget()
            left = mail_in(spool)
            if left and code is not Exit.DATA:
                tell(
                    sys.stderr,
                    f"{words.count(left, 'message')} left in {spool.path}: type the same again to continue\n",
                )
                return max(code, Exit.TEMPORARY)
            release(hosts, epoch, operator, time.time())
    if left:
        stays = f"{words.count(left, 'message')} cannot be moved, as said above, and stays in {spool.path}"
        tell(sys.stderr, f"{stays} until {host} joins again\n")
    else:
        tell(sys.stderr, f"all mail of {host} is in the spool of {config.host} now\n")
    return code


def quiet(spool: Spool, host: str) -> None:
    """Wait until the previous owner's programs have stopped by themselves; report it on standard error.

    Raises:
        NotAdoptable: one of them still runs.
    """
    tell(sys.stderr, f"waiting {LEASE + MARGIN:.0f} s: then no program of {host} uses its lease any more\n")
    told = clocks().uptime()
    for left in wait_until_quiet(spool, clocks(), time.sleep):
        if clocks().uptime() - told >= _TELL_EVERY:
            told = clocks().uptime()
            tell(sys.stderr, f"{left:.0f} s left\n")


def _take_over(loaded: Loaded, spool: Spool, operator: str, *, as_json: bool) -> Exit:
    """Move all mail into the spool of this host: first what is between two spools, then the rest."""
    config = loaded.config
    log = open_log(spool, Level.WARNING, keep=float(config.log_retention))
    theirs = replace(loaded, config=replace(config, spool_dir=spool.path))
    loop.run(_take_drops(theirs, spool))
    context = CommandContext(theirs.config, spool, log, operator)
    code = Exit.OK
    order = Order((), everything=True, dry_run=False, as_json=as_json, wanted=Filter())
    for moves in (Moves(context, order, resumes=True), Moves(context, order, resumes=False)):
        if next(moves.spots(), None):
            with started_here(loaded, config.spool_dir, spool) as child:
                code = max(code, moves.over(child))
    return code


async def _take_drops(theirs: Loaded, spool: Spool) -> None:
    log = open_log(spool, Level.WARNING, keep=float(theirs.config.log_retention))
    await drops.take_in(theirs, spool, log, asyncio.Event())
