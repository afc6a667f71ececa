"""`mailer providers`: show the state of each provider, and reset one after its trouble has been fixed."""

import sys
import time
from datetime import UTC, datetime

import click

from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import end_with_the_pipe
from mailer.cli.setup import command_context


@click.group(
    epilog=examples(
        "mailer providers                 which are used, in which order, and the last trouble",
        "mailer providers --json          one object a line",
        "mailer providers reset primary   try it again now",
    ),
    cls=LazyGroup,
    commands_in={"reset": "mailer.cli.providers.reset:reset"},
    invoke_without_command=True,
)
@json_option
@config_option
@click.pass_context
def providers(click_context: click.Context, *, as_json: bool) -> None:
    """Show the providers in the order in which they are tried, and the state of each.

    In use: the provider gets mail. Paused: it failed, and gets no mail until the time shown; its mail goes to
    the next provider, or waits, and nothing bounces. On trial: the next message tries it again. With --json
    these are the states of a circuit breaker: closed, open, half-open; and trace is the file with what was
    said in a session that met the last trouble.

    For budgets, it shows what is used and when some is free again, of providers and then of recipient
    domains; in JSON: counts, budget [{per, allowed, used, freeAt}], and domains instead of name.
    """
    if click_context.invoked_subcommand:
        if as_json:
            raise click.UsageError("--json is for the list alone")
        return
    from mailer.cli.obstacles import report_obstacles  # noqa: PLC0415 - not needed for `reset`
    from mailer.cli.providers.listing import as_line, as_text, domains, domains_text, listing  # noqa: PLC0415 - as above

    end_with_the_pipe()
    with command_context() as context:
        now = datetime.fromtimestamp(time.time(), UTC)
        report_obstacles(context.config, context.spool)
        rows = listing(context.config, context.spool, now)
        if not rows and not as_json:
            sys.stdout.write("no provider is in use: forwardSMTP is off, or none is configured\n")
        sys.stdout.writelines(as_line(row) if as_json else as_text(row) for row in rows)
        limited = domains(context.config, context.spool)
        sys.stdout.writelines(as_line(row) if as_json else domains_text(row) for row in limited)
