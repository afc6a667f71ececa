"""The `mailer-send` command: a single run over the spool, or a runner that watches it."""

from typing import NoReturn

import click

from mailer import __version__
from mailer.cli.exits import Exit
from mailer.cli.options import (
    DURATION,
    config_option,
    examples,
    json_of,
    log_format_option,
    parent_option,
)
from mailer.cli.program import run
from mailer.cli.without_gc import without_gc


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
    "--once", "mode", flag_value="once", default=True, help="Work until nothing is ready (the default)."
)
@click.option("--watch", "mode", flag_value="watch", help="Keep running, and deliver new mail as it arrives.")
@click.option(
    "--dry-run", "mode", flag_value="dry-run", help="Print what would be tried, without touching anything."
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Try at most N messages; not with --watch."
)
@click.option("--max-seconds", type=DURATION, metavar="TIME", help="Begin nothing after this time (90, 5m).")
@click.option("-v", "--verbose", is_flag=True, help="Log the result for each message; --watch always does.")
@json_of("with --dry-run: id, why, sender, attempt, recipients")
@click.version_option(__version__, prog_name="mailer-send")
@log_format_option
@config_option
@parent_option
def send(
    *,
    mode: str,
    limit: int | None,
    max_seconds: float | None,
    parent: int | None,
    verbose: bool,
    as_json: bool,
) -> Exit:
    """Deliver what is in the spool.

    A run first takes over messages that dead runners left, then tries new messages and retries that are due.
    The exit code is 0 when it has done its work, even if mail was deferred (`mailer spool ls --state retry`
    shows it), and 75 when the spool cannot be opened, created or used. Any number of runs may work at the
    same time.

    SIGTERM and Ctrl-C end a run when deliveries in flight are done, after `sending.shutdownGrace` at the
    latest.
    """
    if mode == "watch" and limit is not None:
        raise click.UsageError("--limit cannot be used with --watch")
    if as_json and mode != "dry-run":
        raise click.UsageError("--json is for --dry-run only")
    with without_gc():
        from mailer.cli.sending.run import dry_run, run  # noqa: PLC0415 - --help and a wrong option need none

    if mode == "dry-run":
        return dry_run(limit, as_json=as_json)
    return run(watch=mode == "watch", limit=limit, max_seconds=max_seconds, parent=parent, verbose=verbose)


if __name__ == "__main__":
    main()  # `mailer up` starts it so.
