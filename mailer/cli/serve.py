"""`mailer serve`: the command of the receiving daemon, which `serving` implements."""

import click

from mailer.cli.exits import Exit
from mailer.cli.options import config_option, examples, log_format_option, parent_option


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
    from mailer.cli.serving import run  # noqa: PLC0415

    return run(port, parent)
