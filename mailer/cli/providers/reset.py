"""`mailer providers reset`: close a provider's circuit breaker, and forget its trouble."""

import sys

import click

from mailer.cli import arguments
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import json_line, tell
from mailer.cli.setup import command_context
from mailer.config.hops import by_name, find_providers
from mailer.mail.reply import printable
from mailer.spool.state import provider_state


@click.command(
    epilog=examples(
        "mailer providers reset primary",
        "mailer providers reset --all",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=arguments.providers)
@click.option("--all", "everyone", is_flag=True, help="Every provider.")
@json_option
@config_option
def reset(names: tuple[str, ...], *, everyone: bool, as_json: bool) -> None:
    """Use a provider again immediately, as if there had been no trouble.

    Do so when you have corrected the provider's password, for example. NAME is the name that `mailer
    providers` shows first, USERNAME@HOST, or HOST:PORT for all providers there. Waiting mail keeps its time;
    `mailer spool retry --all` has it tried at the next run. JSON is one object a line: name, host, port,
    action (reset).
    """
    if bool(names) == everyone:
        raise click.UsageError("Name the providers, or say --all.")
    with command_context() as context:
        known = context.config.providers
        chosen = by_name(known) if everyone else {}
        for name in names:
            found = find_providers(known, name)
            if not found:
                there = ", ".join(by_name(known)) or "none"
                raise Failure(Exit.NO_INPUT, printable(f"{name}: no such provider; there is: {there}"))
            chosen |= found
        provider_state.forget(context.spool, {one.account for one in chosen.values()})
        for label, one in chosen.items():
            context.log.provider(label, "closed", f"reset by {context.operator}")
            if as_json:
                told = {"name": label, "host": one.host, "port": one.port, "action": "reset"}
                tell(sys.stdout, json_line(told))
            else:
                tell(sys.stdout, printable(f"{label}: as if there had been no trouble") + "\n")
