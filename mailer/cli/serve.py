"""`mailer serve`, which `serving` implements; `mailer session`: one SMTP session, for `mailer-sendmail`."""

import os
import socket
import time

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, log_format_option, parent_option
from mailer.cli.owner import acting_as_owner, become_owner
from mailer.cli.setup import configuration, keeping_lease, open_log, program_spool
from mailer.config.load import Loaded
from mailer.spool.directory import Spool


@click.command(
    epilog=examples(
        "mailer serve --config /etc/mailer/config.json",
        "mailer serve --port 2525",
    )
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Listen on this port instead of smtpPort; 0 lets the system choose, and the log names it.",
)
@log_format_option
@config_option
@parent_option
def serve(port: int | None, parent: int | None) -> Exit:
    """Receive mail into the spool until SIGTERM or Ctrl-C, which let messages in flight finish.

    It listens for SMTP at smtpPort, at each of listeners and at submitSocket, and for HTTP, with
    submitHttp.enabled: POST /v1/messages with a token of mailer user.
    """
    # Imported here because --help does not need it; the receiver and aiosmtpd take 100 ms.
    from mailer.cli.receiving.daemon import run  # noqa: PLC0415

    return run(port, parent)


@click.command(
    hidden=True, epilog=examples("MAILER_SUBMIT_SOCKET=/nowhere mailer-sendmail root    starts it, as root")
)
@config_option
def session() -> Exit:
    """Take mail from one program on standard input, a socket, as at `submitSocket`, when no receiver runs.

    Only root and the spool's owner can use it. The program on the socket counts as the user of this process;
    `localUsers` maps that user to a mailer user, with the same limits.
    """
    from mailer.cli.service import loop  # noqa: PLC0415 - not needed for --help and completion
    from mailer.config import checks  # noqa: PLC0415 - as above
    from mailer.config.problem import ConfigError  # noqa: PLC0415 - as above

    try:
        connection = socket.socket(fileno=os.dup(0))
    except OSError:
        raise Failure(Exit.USAGE, "standard input is not a socket; mailer-sendmail starts this") from None
    ids = os.getuid(), frozenset({os.getgid(), *os.getgroups()})
    loaded = configuration()
    if problems := checks.refuse_to_serve(loaded):
        raise ConfigError(problems)
    with connection:
        with acting_as_owner(loaded.config.spool_dir):
            spool = program_spool(loaded.config)
        with spool:
            loop.run(_serve_one(loaded, spool, connection, ids))
    return Exit.OK


async def _serve_one(
    loaded: Loaded, spool: Spool, connection: socket.socket, ids: tuple[int, frozenset[int]]
) -> None:
    from mailer.cli.receiving import receiver  # noqa: PLC0415 - as above
    from mailer.maillog.events import Level  # noqa: PLC0415 - as above
    from mailer.receive.server import serve_one  # noqa: PLC0415 - as above
    from mailer.receive.upload import Store  # noqa: PLC0415 - as above
    from mailer.receive.users.local_users import PeerIds  # noqa: PLC0415 - as above
    from mailer.spool.committer import Committer  # noqa: PLC0415 - as above

    log, committer = open_log(spool, Level.WARNING), Committer(spool)
    settings = receiver.settings(loaded.config, None)
    context = receiver.context(loaded, settings, Store(spool, committer, log, time.time), None)
    # Before anything is written, and before a thread starts.
    become_owner(loaded.config.spool_dir)
    committer.start()
    try:
        with keeping_lease(spool, log):
            await serve_one(context, connection, PeerIds(*ids))
    finally:
        committer.close()
