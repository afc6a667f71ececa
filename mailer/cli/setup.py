"""Set-up that commands share: load the configuration, open the spool and the logs, take the lease."""

import math
import os
import pwd
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_path, log_format
from mailer.cli.output import tell
from mailer.cli.owner import become_owner
from mailer.config.load import Loaded, load
from mailer.config.model import Config
from mailer.mail.reply import printable
from mailer.maillog.events import Level, MailLog
from mailer.maillog.ledger import Ledger
from mailer.maillog.stderr import Format, stderr_sink
from mailer.spool.directory import Spool
from mailer.spool.layout import DIRECTORIES, LOG, TRACES
from mailer.spool.preparation import SpoolError, is_of_hosts
from mailer.spool.state.pause import describe, read_pause


class CommandContext(msgspec.Struct, frozen=True):
    """What a command that works on the spool needs."""

    config: Config
    spool: Spool
    log: MailLog
    operator: str
    """The user who typed the command, for the journal and the ledger."""


def configuration() -> Loaded:
    """Load the configuration from --config, the environment or the default paths; raises ConfigError."""
    return load(config_path(), os.environ)


@contextmanager
def command_context(loaded: Loaded | None = None) -> Iterator[CommandContext]:
    """Open the spool, as its owner, for a command that inspects it or operates on it.

    Args:
        loaded: the configuration; None to load it here.

    Raises:
        ConfigError, SpoolError: the configuration or the spool cannot be used.
    """
    config = (loaded or configuration()).config
    operator = operator_name(os.environ)
    become_owner(config.spool_dir)
    with Spool.open(config.spool_dir) as spool:
        log = open_log(spool, Level.WARNING, keep=float(config.log_retention))
        try:
            yield CommandContext(config, spool, log, operator)
        except OSError as error:
            # The spool opens its files by paths relative to its own descriptor.
            if isinstance(error.filename, str) and error.filename.partition("/")[0] in DIRECTORIES:
                error.filename = str(spool.path / error.filename)
            raise


@contextmanager
def changing_context(loaded: Loaded | None = None) -> Iterator[CommandContext]:
    """Open the spool, as `command_context` does, for a command that changes messages.

    Raises:
        Failure, SpoolError: also if another host has taken the spool over, or does so meanwhile.
    """
    with command_context(loaded) as context:
        take_lease(context.config, context.spool)
        with keeping_lease(context.spool, context.log):
            yield context


def program_log(config: Config, spool: Spool, level: Level) -> MailLog:
    """Open the mail log of a program, in the format of --log-format or `logFormat`."""
    form = Format(log_format() or config.log_format.value)
    return open_log(spool, level, form, keep=float(config.log_retention))


def open_log(spool: Spool, level: Level, form: Format = Format.LOGFMT, *, keep: float = math.inf) -> MailLog:
    """Open the mail log: the ledger in the spool, and standard error for events of `level` and above.

    Args:
        spool: the spool that the ledger is in.
        level: the lowest level that is written to standard error.
        form: the format on standard error.
        keep: seconds for which the ledger keeps a day after its end.
    """
    sink = stderr_sink(level, time.time, form=form, journald=_stderr_is_the_journal(os.environ))

    def on_trouble(error: OSError) -> None:
        sink(Level.WARNING, "the ledger cannot be written; no mail depends on it", {"error": error.strerror})

    ledger = Ledger(partial(spool.directory, LOG), on_trouble)
    spool.on_close.append(ledger.end)
    traces = partial(spool.directory, TRACES)
    return MailLog(time.time, sink, ledger, traces=traces, keep=keep, shown=level)


def _stderr_is_the_journal(environ: Mapping[str, str]) -> bool:
    """Return whether standard error goes to journald (systemd.exec(5), JOURNAL_STREAM)."""
    state = os.fstat(sys.stderr.fileno())
    return environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"


def operator_name(environ: Mapping[str, str]) -> str:
    """Return the login of the user who gave the command: the caller of sudo, or else the process's user."""
    uid = os.getuid()
    if uid == 0 and environ.get("SUDO_USER"):
        # Any user can set the variable, so believe it only in a process of root.
        return printable(environ["SUDO_USER"], 64)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def make_spool(path: Path) -> Spool:
    """Open the spool for a program that may be the first to use it.

    Raises:
        Failure: the spool does not exist and cannot be created.
        SpoolError: the spool exists and cannot be used.
    """
    try:
        return Spool.open(path, create=True)
    except SpoolError as error:
        if path.exists():
            raise
        raise Failure(Exit.CANNOT_CREATE, f"{path}: the spool cannot be made: {error.strerror}") from error


def program_spool(config: Config, opened: Callable[[Path], Spool] = make_spool) -> Spool:
    """Open the spool of this host, for a program that accepts or sends mail, and may be the first to use it.

    If several hosts share `spoolDir`, take the lease on this host's part; `keeping_lease` renews it.

    Args:
        config: of this host.
        opened: opens the spool; by default it may make it.

    Raises:
        Failure, SpoolError: as `opened`; or another host has taken the spool over.
    """
    if config.shared_dir is not None:
        from mailer.cli.lease import taken  # noqa: PLC0415 - most hosts share nothing

        return taken(config, opened)
    spool = opened(config.spool_dir)
    try:
        take_lease(config, spool)
    except Failure:
        spool.close()
        raise
    return spool


def take_lease(config: Config, spool: Spool) -> None:
    """Take the lease on an open spool, if it is that of one of several hosts.

    Raises:
        Failure: it is not this host's.
        SpoolError: another host has taken it over.
        OSError: the filesystem that the hosts share does not answer.
    """
    if config.shared_dir is not None and os.path.samestat(os.fstat(spool.root), config.spool_dir.stat()):
        from mailer.cli.lease import take  # noqa: PLC0415 - as above

        take(config, spool)
    elif is_of_hosts(spool.root):
        path = spool.path.absolute()
        raise Failure(
            Exit.CONFIG,
            f"{path} is the spool of one of several hosts (mailer guide several-hosts), which alone may "
            f'change it, with "spoolDir": "{path.parent}" and "host": "{path.name}"',
        )


@contextmanager
def keeping_lease(spool: Spool, log: MailLog) -> Iterator[None]:
    """Renew the spool's lease within the block, if it has one; to be entered as the spool's owner.

    Raises:
        Failure: at the end, if the spool was lost to another host meanwhile.
    """
    if spool.lease is None:
        yield
        return
    from mailer.cli.lease import kept  # noqa: PLC0415 - most hosts share nothing

    with kept(spool.lease, log):
        yield


def say_if_paused(spool: Spool) -> None:
    """Report on standard error that the operator has paused the runners."""
    if paused := read_pause(spool):
        tell(sys.stderr, f"{describe(paused)}\n")
