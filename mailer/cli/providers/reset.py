"""`mailer providers reset`: forget what was wrong with a provider."""

import sys

import click

from mailer.cli import candidates
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import json_line
from mailer.cli.reader import tell
from mailer.cli.setup import workplace
from mailer.mail.reply import printable
from mailer.spool.state import provider_state


@click.command(
    epilog=examples(
        "mailer providers reset primary",
        "mailer providers reset --all",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=candidates.providers)
@click.option("--all", "everyone", is_flag=True, help="Every provider.")
@json_option
@config_option
def reset(names: tuple[str, ...], *, everyone: bool, as_json: bool) -> None:
    """Use a provider again at once, as if there had been no trouble: its password is mended, say.

    NAME is what `mailer providers` shows first, or HOST:PORT. Mail that waits for it keeps its time; `mailer
    spool retry --all` has it tried at the next run. JSON is one object a line: name, host, port, action
    (reset).
    """
    if bool(names) == everyone:
        raise click.UsageError("Name the providers, or say --all.")
    with workplace() as at:
        known = at.config.providers
        for name in names:
            if not any(name in {one.label, f"{one.host}:{one.port}"} for one in known):
                there = ", ".join(one.label for one in known) or "none"
                raise Failure(Exit.NO_INPUT, printable(f"{name}: no such provider; there is: {there}"))
        chosen = [one for one in known if everyone or one.label in names or f"{one.host}:{one.port}" in names]
        provider_state.forget(at.spool, {one.account for one in chosen})
        for one in chosen:
            at.log.provider(one.label, "closed", f"reset by {at.operator}")
            if as_json:
                told = {"name": one.label, "host": one.host, "port": one.port, "action": "reset"}
                tell(sys.stdout, json_line(told))
            else:
                tell(sys.stdout, printable(f"{one.label}: as if there had been no trouble") + "\n")
