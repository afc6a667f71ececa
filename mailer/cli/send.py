"""`mailer-send`: one run over the spool, or a runner that stays."""

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import click

from mailer import __version__
from mailer.cli import drops
from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit, Failure
from mailer.cli.hangup import postpone
from mailer.cli.options import (
    DURATION,
    config_option,
    examples,
    json_of,
    log_format_option,
    parent_option,
)
from mailer.cli.parent import end_with
from mailer.cli.program import run, system_words
from mailer.cli.service_manager import ServiceManager
from mailer.cli.wire import (
    become_owner,
    configuration,
    make_spool,
    program_log,
    say_if_paused,
    uses_http,
    workplace,
)
from mailer.config.checks import refuse_to_send
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.config.own_name import own_name
from mailer.config.problem import ConfigError
from mailer.maillog import outlet
from mailer.maillog.events import Level, MailLog
from mailer.spool.layout import Spool, SpoolError

if TYPE_CHECKING:
    from mailer.events.deliverer import Deliverer

ONCE, WATCH, DRY_RUN = "once", "watch", "dry-run"


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asks for."""

    mode: str
    limit: int | None
    """Messages to try, at most; None: all."""
    max_seconds: float | None
    """After that nothing is begun; None: no end."""


def main() -> NoReturn:
    """Run `mailer-send`."""
    run(send, "mailer-send")


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "mailer-send --once                     from cron or a timer",
        "mailer-send --once --max-seconds 55    begin nothing that the next cron run could",
        "mailer-send --watch                    as a service",
        "mailer-send --dry-run --json           one object a line: id, why, sender, attempt, recipients",
    ),
)
@click.option(
    "--once", "mode", flag_value=ONCE, default=True, help="Work until nothing is ready (the default)."
)
@click.option("--watch", "mode", flag_value=WATCH, help="Stay, and take new mail up as it arrives.")
@click.option("--dry-run", "mode", flag_value=DRY_RUN, help="Say what would be tried, and touch nothing.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Try at most N messages; not with --watch."
)
@click.option("--max-seconds", type=DURATION, metavar="TIME", help="Begin nothing after this time (90, 5m).")
@click.option("-v", "--verbose", is_flag=True, help="Say what becomes of each message; --watch always does.")
@json_of("with --dry-run: id, why, sender, attempt, recipients")
@click.version_option(__version__, prog_name="mailer-send")
@log_format_option
@config_option
@parent_option
def send(*, parent: int | None, verbose: bool, as_json: bool, **asked: object) -> Exit:
    """Deliver what is in the spool.

    A run first takes over what dead runners left, then tries what is new and what is due again. It ends with
    0 when it has done its work, even if mail was deferred (`mailer spool ls --state retry` shows it), and
    with 75 when the spool cannot be opened, made or worked with. Any number of runs may work at once.

    SIGTERM and Ctrl-C end a run when what is in flight is done, after `sending.shutdownGrace` at the latest.
    """
    order = Order(**asked)  # type: ignore[arg-type]  # click made the options' values as they are declared above
    if order.mode == WATCH and order.limit is not None:
        raise click.UsageError("--limit is for one run; --watch has no end")
    if as_json and order.mode != DRY_RUN:
        raise click.UsageError("--json goes with --dry-run")
    if order.mode != DRY_RUN:
        outlet.install()
    if order.mode == WATCH:
        postpone()
    manager = ServiceManager.of(os.environ)
    loaded = configuration()
    if problems := refuse_to_send(loaded):
        raise ConfigError(problems)
    config = loaded.config
    if order.mode == DRY_RUN:
        from mailer.cli.dry_run import dry_run  # noqa: PLC0415 - a run needs none of it

        with _try_again_later(), workplace(loaded) as at:
            dry_run(config, at.spool, time.time(), limit=order.limit, as_json=as_json)
        return Exit.OK
    drops.prepare(config.spool_dir)
    become_owner(config.spool_dir, http=uses_http(config), events=config.on_event.enabled)
    with _try_again_later():
        opened = make_spool(config.spool_dir)
    with opened as spool:
        end_with(parent)
        if order.mode == ONCE and sys.stderr.isatty():  # cron would mail it each minute
            say_if_paused(spool)
        log = program_log(config, spool, Level.INFO if verbose or order.mode == WATCH else Level.WARNING)
        if order.mode == WATCH:
            return asyncio.run(_watch(loaded, spool, log, manager))
        return asyncio.run(_send(loaded, spool, log, order))


@contextmanager
def _try_again_later() -> Iterator[None]:
    """Have a spool that cannot be used end a run with 75, as trouble in the middle of it does."""
    try:
        yield
    except SpoolError as error:
        raise Failure(Exit.TEMPORARY, system_words(error)) from error
    except Failure as failure:
        if failure.code is not Exit.CANNOT_CREATE:
            raise
        raise Failure(Exit.TEMPORARY, str(failure)) from failure


async def _watch(loaded: Loaded, spool: Spool, log: MailLog, manager: ServiceManager) -> Exit:
    from mailer.cli.watch import Watch  # noqa: PLC0415 - as below

    await Watch(loaded, spool, log, manager).run()
    log.notice("ended")
    return Exit.OK


async def _send(loaded: Loaded, spool: Spool, log: MailLog, order: Order) -> Exit:
    # Imported here: --help and a wrong option need none of it.
    from mailer.send.marker import Marker  # noqa: PLC0415
    from mailer.send.run import open_runner  # noqa: PLC0415
    from mailer.send.runner import Stopped  # noqa: PLC0415

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    began, most = loop.time(), order.max_seconds
    # Half of the time at most: a flood there must not keep all mail from being delivered.
    await drops.take_in(loaded, spool, log, stop, math.inf if most is None else most / 2)
    config = loaded.config
    hostname = own_name(config)
    grace = float(config.sending.shutdown_grace)
    marker = Marker(spool, log, time.time, order.mode)
    deliverer = _deliverer(config, spool, log)
    async with open_runner(config, spool, log, clocks(), hostname=hostname, limit=order.limit or 0) as runner:
        if most is not None:
            loop.call_at(began + most, runner.begin_nothing_more)
        try:
            await runner.once(stop, grace)
        except Stopped as stopped:
            log.error("stopped: the spool cannot be worked with", error=stopped.strerror)
            return Exit.TEMPORARY
        marker.set(runner)
    if deliverer:
        from mailer.cli.telling import AFTER_A_RUN, tell_rest  # noqa: PLC0415 - few hosts tell events

        left = AFTER_A_RUN if most is None else most - (loop.time() - began)
        await tell_rest(deliverer, log, stop, left)
    return Exit.OK


def _deliverer(config: Config, spool: Spool, log: MailLog) -> "Deliverer | None":
    """Return what tells events; None: nobody is to be told. What the run does is told, however it ends."""
    if not config.on_event.enabled:
        return None
    from mailer.cli.telling import deliverer  # noqa: PLC0415 - few hosts tell events

    return deliverer(config, spool, log)


if __name__ == "__main__":
    main()  # As `mailer up` starts it.
