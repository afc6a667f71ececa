"""`mailer init`: write a minimal configuration from six answers, and print the applications' settings."""

import os
import sys
from pathlib import Path

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.init import answers, outcome, writing
from mailer.cli.options import config_path, examples, json_option
from mailer.config import checks
from mailer.config.load import load

_OWN, _SYSTEM = Path("config.json"), Path("/etc/mailer/config.json")


@click.command(
    epilog=examples(
        "mailer init                                   asks six questions",
        "mailer init --sender app@example.com --provider smtp.example.net --username app@example.com",
        "pass show smtp | mailer init --sender app@example.com --provider smtp.example.net",
        "mailer init --sender app@example.com --local  no provider: mail is kept on this host",
    )
)
@click.option("--sender", metavar="ADDRESS", help="What applications send as; it is also their login.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Where applications submit, on this host: 25 as root, else 2525.",
)
@click.option("--provider", metavar="HOST", help="The provider's SMTP server, which takes your mail.")
@click.option(
    "--provider-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="587 (STARTTLS, the default) or 465 (TLS from the first byte).",
)
@click.option("--username", metavar="NAME", help="The login at the provider; otherwise the sender's address.")
@click.option("--local", is_flag=True, help="Use no provider: keep mail in the local Maildir, to try it out.")
@click.option(
    "--config",
    "named",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file to write: /etc/mailer/config.json as root, else ./config.json. It must not exist yet.",
)
@json_option
def init(*, named: Path | None, as_json: bool, **given: object) -> None:
    """Write a minimal configuration with a generated password, and print the applications' settings.

    On a terminal it asks for everything that no option gives, the provider's password included. Without a
    terminal it asks nothing: then --sender, and --provider or --local, are required, and the password is read
    from standard input.

    The exit code is 73 when the file exists already. JSON is one object: config (the file), host, port,
    username, password, provider (empty for none).
    """
    target = _target(named)
    if target.exists():
        raise Failure(
            Exit.CANNOT_CREATE,
            f"{target} exists already: edit it, move it away, or name another with --config FILE",
        )
    asked = answers.Given(**given)  # type: ignore[arg-type]  # click has converted them to these types
    answered = answers.ask(asked, privileged=os.geteuid() == 0)
    made = writing.document(answered, target)
    writing.write(target, made)
    loaded = load(target, {})
    for warning in checks.warnings(loaded):
        sys.stderr.write(f"warning: {warning}\n")
    outcome.tell(target, answered, str(made["defaultPassword"]), as_json=as_json)


def _target(named: Path | None) -> Path:
    """Return the file to write: the one that is named, or one that the programs find without being told."""
    outer = config_path()
    path = named or (Path(outer) if outer else None)
    if path is None and (variable := os.environ.get("MAILER_CONFIG")):
        path = Path(variable)
    return (path or (_SYSTEM if os.geteuid() == 0 else _OWN)).absolute()
