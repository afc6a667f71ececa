"""Run `mailer-send`: load the configuration, open the spool, deliver, and return the exit code."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit, Failure
from mailer.cli.owner import acting_as_owner, become_owner
from mailer.cli.program import system_words
from mailer.cli.service.manager import ServiceManager
from mailer.cli.setup import (
    command_context,
    configuration,
    keeping_lease,
    program_log,
    program_spool,
    say_if_paused,
)
from mailer.config.checks import refuse_to_send
from mailer.config.load import Loaded
from mailer.config.problem import ConfigError
from mailer.maillog import outlet
from mailer.maillog.events import Level
from mailer.send.heartbeat import Heartbeat
from mailer.send.idle import is_idle
from mailer.spool.preparation import SpoolError


def dry_run(limit: int | None, *, as_json: bool) -> Exit:
    """Print what a run would try."""
    from mailer.cli.sending import dry_run  # noqa: PLC0415 - a real run does not need it

    loaded = _configuration()
    with _try_again_later(), command_context(loaded) as context:
        dry_run.dry_run(loaded.config, context.spool, time.time(), limit=limit, as_json=as_json)
    return Exit.OK


def run(
    *, watch: bool, limit: int | None, max_seconds: float | None, parent: int | None, verbose: bool
) -> Exit:
    """Deliver what is in the spool, once, or with `watch` until a signal ends the program.

    Args:
        watch: stay, and deliver new mail as it arrives.
        limit: the most messages to try; None for no limit.
        max_seconds: seconds after which no delivery is begun; None for no limit.
        parent: the process to end with; None for none.
        verbose: log the result for each message.
    """
    outlet.install()
    if watch:
        from mailer.cli.service.hangup import postpone  # noqa: PLC0415 - only for --watch

        postpone()
    manager = ServiceManager.of(os.environ)
    loaded = _configuration()
    config, level = loaded.config, Level.INFO if verbose or watch else Level.WARNING
    if not watch and _was_idle(loaded, level):
        return Exit.OK
    # Imported here because most runs from cron are idle.
    from mailer.cli.sending import drops  # noqa: PLC0415
    from mailer.cli.sending.once import once  # noqa: PLC0415
    from mailer.cli.service import loop  # noqa: PLC0415
    from mailer.cli.service.children import end_with  # noqa: PLC0415

    drops.prepare(config.spool_dir)
    become_owner(config.spool_dir)
    with _try_again_later():
        opened = program_spool(config)
    with opened as spool:
        end_with(parent)
        if not watch and sys.stderr.isatty():  # cron would mail it each minute
            say_if_paused(spool)
        log = program_log(config, spool, level)
        with keeping_lease(spool, log):
            if not watch:
                return loop.run(once(loaded, spool, log, limit, max_seconds))
            from mailer.cli.sending.watch import Watch  # noqa: PLC0415 - only for --watch

            loop.run(Watch(loaded, spool, log, manager).run())
        log.notice("ended")
        return Exit.OK


def _configuration() -> Loaded:
    loaded = configuration()
    if problems := refuse_to_send(loaded):
        raise ConfigError(problems)
    return loaded


def _was_idle(loaded: Loaded, level: Level) -> bool:
    """Return whether there is nothing to do, and if so record the run. Root checks as the spool's owner."""
    config = loaded.config
    with _try_again_later(), acting_as_owner(config.spool_dir), program_spool(config) as spool:
        log = program_log(config, spool, level)
        heartbeat = Heartbeat(spool, log, time.time, "once")
        idle = is_idle(config, spool, log, clocks())
        if idle:
            heartbeat.set()
        return idle


@contextmanager
def _try_again_later() -> Iterator[None]:
    """Turn a spool that cannot be opened or created into exit code 75, as for an error during a run."""
    try:
        yield
    except SpoolError as error:
        raise Failure(Exit.TEMPORARY, system_words(error)) from error
    except Failure as failure:
        if failure.code is not Exit.CANNOT_CREATE:
            raise
        raise Failure(Exit.TEMPORARY, str(failure)) from failure
