"""`mailer config`: is the configuration all right, and what does it come to."""

import sys

import click
import msgspec

from mailer.cli.exits import Exit
from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.wire import configuration, end_with_the_pipe
from mailer.config import checks
from mailer.config.problem import ConfigError, Problem
from mailer.config.show import effective


@click.group(
    epilog=examples(
        "mailer config check --config /etc/mailer/config.json",
        "mailer config show",
    ),
    cls=LazyGroup,
    commands_in={"check": "mailer.cli.config:check", "show": "mailer.cli.config:show"},
)
@config_option
def config() -> None:
    """Look at the configuration."""
    end_with_the_pipe()


@click.command(
    epilog=examples(
        "mailer config check",
        "mailer config check --json | jq .warnings",
    )
)
@json_option
@config_option
def check(*, as_json: bool) -> Exit:
    """Say everything that is wrong with the configuration.

    Exit code 0 when it can be used, with warnings on standard error; 78 when it cannot, with one error a
    line.
    """
    try:
        loaded = configuration()
    except ConfigError as error:
        if not as_json:
            raise
        _print_report("", error.problems, ())
        return Exit.CONFIG
    warnings = checks.warnings(loaded)
    if as_json:
        _print_report(str(loaded.path), (), warnings)
        return Exit.OK
    sys.stderr.writelines(f"warning: {warning}\n" for warning in warnings)
    sys.stdout.write(f"{loaded.path}: can be used\n")
    return Exit.OK


def _print_report(path: str, errors: tuple[Problem, ...], warnings: tuple[Problem, ...]) -> None:
    report = {"path": path, "errors": errors, "warnings": warnings}
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


@click.command(
    epilog=examples(
        "mailer config show | jq .retry",
    )
)
@config_option
def show() -> None:
    """Print every key with the value that counts, as JSON; secrets are masked."""
    document = msgspec.json.format(msgspec.json.encode(effective(configuration().config)), indent=2)
    sys.stdout.write(document.decode() + "\n")
