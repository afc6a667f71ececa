"""The other side of `mailer spool move`: starting it, and `mailer spool receive-moved`, which it is."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import split

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, parent_option
from mailer.cli.owner import become_owner
from mailer.cli.program import system_words
from mailer.cli.service.children import child_argv, end_with
from mailer.cli.setup import configuration, keeping_lease, make_spool, open_log, take_lease
from mailer.config.load import Loaded
from mailer.maillog.events import Level
from mailer.spool.directory import Spool
from mailer.spool.handover.alone import Occupied, alone
from mailer.spool.handover.arriving import serve
from mailer.spool.handover.wire import Broken, Greeting, Pipe
from mailer.spool.mark import identity

_INNER = "receive-moved"


@contextmanager
def started_by_caller(via: str | None, *, dry_run: bool) -> Iterator[subprocess.Popen[bytes] | None]:
    """Start the command of --via, if there is one, as the user who gave it, who may have the keys of ssh."""
    if via is None or dry_run:
        yield None
        return
    try:
        argv = split(via)
    except ValueError as error:
        raise click.UsageError(f"--via: {error}") from None
    if _INNER not in argv:
        argv += ["mailer", "spool", _INNER]
    with _child(argv) as child:
        yield child


@contextmanager
def started_here(loaded: Loaded, directory: Path, spool: Spool) -> Iterator[subprocess.Popen[bytes]]:
    """Start the other side on this host, as the owner of our spool."""
    if directory.exists() and directory.samefile(spool.path):
        raise Failure(Exit.USAGE, f"{directory} is the spool that the messages are in")
    argv = child_argv(
        "mailer", "spool", _INNER, "--spool", str(directory.absolute()), config=loaded.path, logs=False
    )
    with _child(argv) as child:
        yield child


@contextmanager
def _child(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        child = subprocess.Popen(  # noqa: S603 - no shell, and the operator wrote the arguments
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
    except OSError as error:
        raise Failure(Exit.UNAVAILABLE, f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        yield child
    finally:
        assert child.stdin
        assert child.stdout
        child.stdin.close()
        child.stdout.close()
        child.wait()


@click.command(hidden=True)
@click.option("--spool", "directory", type=click.Path(path_type=Path), help="The spool, if not spoolDir.")
@config_option
@parent_option
def receive_moved(*, directory: Path | None, parent: int | None) -> None:
    """Take in what `mailer spool move` writes to standard input; it starts this by itself."""
    config = configuration().config
    path = directory or config.spool_dir
    become_owner(path)
    end_with(parent)
    with make_spool(path) as spool:
        take_lease(config, spool)
        try:
            here = Greeting(place_of(spool), identity(spool.root))
        except OSError as error:
            raise Failure(
                Exit.TEMPORARY, f"the name of the spool cannot be stored in {path}: {system_words(error)}"
            ) from error
        log = open_log(spool, Level.WARNING, keep=float(config.log_retention))

        def on_arrival(message_id: str, to: tuple[str, ...]) -> None:
            log.message("arrived", id=message_id, to=to)

        try:
            with keeping_lease(spool, log), alone(spool):
                serve(
                    spool,
                    Pipe(0, 1),
                    here,
                    time.time,
                    min_free=config.min_free_space,
                    on_arrival=on_arrival,
                )
        except Occupied as error:
            message = (
                f"another move is under way in {path}: wait, or end its receive-moved if its source died"
            )
            raise Failure(Exit.TEMPORARY, message) from error
        except Broken as broken:
            raise Failure(Exit.TEMPORARY, f"the connection of the move was lost: {broken}") from broken


def place_of(spool: Spool) -> str:
    """Name a spool for the journals of another host."""
    return f"{os.uname().nodename}:{spool.path}"
