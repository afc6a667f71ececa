"""`mailer config`: check the configuration, print its effective values, explain its keys."""

import sys
from collections.abc import Iterator

import click
import msgspec

from mailer.cli.exits import Exit
from mailer.cli.file_access import unreadable
from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import end_with_the_pipe, json_line
from mailer.cli.owner import acting_as_owner
from mailer.cli.receiving.start import obstacles
from mailer.cli.setup import configuration
from mailer.config.load import Loaded
from mailer.config.problem import ConfigError, Problem
from mailer.config.show import effective
from mailer.config.warnings import warnings
from mailer.mail.reply import printable


@click.group(
    epilog=examples(
        "mailer config check --config /etc/mailer/config.json",
        "mailer config show",
        "mailer config keys retry.schedule",
    ),
    cls=LazyGroup,
    commands_in={
        "check": "mailer.cli.config:check",
        "show": "mailer.cli.config:show",
        "keys": "mailer.cli.keys.command:keys",
    },
)
@config_option
def config() -> None:
    """Check, show and explain the configuration."""
    end_with_the_pipe()


@click.command(
    epilog=examples(
        "mailer config check",
        "mailer config check --json | jq .warnings",
    )
)
@json_of("path, errors and warnings [{path, message}]")
@config_option
def check(*, as_json: bool) -> Exit:
    """Report everything that is wrong with the configuration.

    The exit code is 0 when `mailer serve` and `mailer up` can use it, with warnings on standard error; 78
    when they would refuse it, with one error per line. Root checks as the spool's owner: `serve` runs as that
    user, and exits with 78 if it cannot read a file, the configuration included. Like `serve`, it runs the
    command that `defaultPassword` may name.
    """
    try:
        loaded = configuration()
    except ConfigError as error:
        if not as_json:
            raise
        _print_report("", error.problems, ())
        return Exit.CONFIG
    # Check as the user whom the services run as: root can read files that they cannot.
    with acting_as_owner(loaded.config.spool_dir):
        errors = tuple(dict.fromkeys((*obstacles(loaded), *_closed(loaded))))
    found = tuple(problem for problem in warnings(loaded) if problem not in errors)
    if as_json:
        _print_report(str(loaded.path), errors, found)
        return Exit.CONFIG if errors else Exit.OK
    sys.stderr.writelines(f"warning: {warning}\n" for warning in found)
    if errors:
        raise ConfigError(errors)
    sys.stdout.write(f"{loaded.path}: can be used\n")
    return Exit.OK


def _closed(loaded: Loaded) -> Iterator[Problem]:
    """Find files that the spool's owner, as whom the programs run, cannot read."""
    config = loaded.config
    files = {
        "$": loaded.path,
        "$.usersFile": config.users_file,
        "$.tls.certificatePath": config.tls.certificate_path,
        "$.tls.privateKeyPath": config.tls.private_key_path,
    }
    if config.dkim.enabled:
        files |= {f"the DKIM key of {key.domain}": key.private_key_path for key in config.dkim.signing_keys}
    for key, path in files.items():
        if path is not None and (why := unreadable(path, loaded.path.parent)):
            yield Problem(key, f"{printable(str(path))}: {why}")


def _print_report(path: str, errors: tuple[Problem, ...], warnings: tuple[Problem, ...]) -> None:
    report = {"path": path, "errors": errors, "warnings": warnings}
    sys.stdout.write(json_line(report))


@click.command(
    epilog=examples(
        "mailer config show | jq .retry",
    )
)
@config_option
def show() -> None:
    """Print every key with its effective value, as JSON; secrets are masked."""
    document = msgspec.json.format(msgspec.json.encode(effective(configuration().config)), indent=2)
    sys.stdout.write(document.decode() + "\n")
