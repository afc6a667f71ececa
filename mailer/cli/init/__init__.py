"""`mailer init`: write a minimal configuration from six answers, and print the applications' settings."""

import os
import shutil
import sys
from pathlib import Path
from shlex import quote

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.init import answers, writing
from mailer.cli.init.answers import Answers
from mailer.cli.options import config_path, examples, json_option
from mailer.cli.output import json_line
from mailer.config.load import find, load
from mailer.config.problem import ConfigError
from mailer.config.warnings import warnings

_OWN, _SYSTEM = Path("config.json"), Path("/etc/mailer/config.json")
_UNIT = Path("/etc/systemd/system/mailer.service")
_SETTINGS = """\
Settings for your applications (host, port, login; no TLS: this stays on this host)

  Django       EMAIL_HOST="127.0.0.1"; EMAIL_PORT={port}; EMAIL_USE_TLS=False
               EMAIL_HOST_USER="{user}"; EMAIL_HOST_PASSWORD="{password}"
  nodemailer   createTransport({{host: "127.0.0.1", port: {port}, secure: false,
                 auth: {{user: "{user}", pass: "{password}"}}}})
  PHPMailer    Host="127.0.0.1"; Port={port}; SMTPAuth=true; SMTPAutoTLS=false;
               Username="{user}"; Password="{password}"
  environment  SMTP_HOST=127.0.0.1 SMTP_PORT={port} SMTP_USER={user} SMTP_PASSWORD={password}
"""


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
    for warning in warnings(loaded):
        sys.stderr.write(f"warning: {warning}\n")
    _tell(target, answered, str(made["defaultPassword"]), as_json=as_json)


def _target(named: Path | None) -> Path:
    """Return the file to write: the one that is named, or one that the programs find without --config."""
    outer = config_path()
    path = named or (Path(outer) if outer else None)
    if path is None and (variable := os.environ.get("MAILER_CONFIG")):
        path = Path(variable)
    return (path or (_SYSTEM if os.geteuid() == 0 else _OWN)).absolute()


def _tell(target: Path, answered: Answers, password: str, *, as_json: bool) -> None:
    """Print the result on standard output: the file written, the next commands, and settings to paste."""
    if as_json:
        settings = {
            "host": "127.0.0.1",
            "port": answered.port,
            "username": answered.sender,
            "password": password,
        }
        made = {"config": str(target), **settings, "provider": answered.provider or ""}
        sys.stdout.write(json_line(made))
        return
    named = "" if _is_found(target) else f" --config {quote(str(target))}"
    command = quote(_command_name())
    where = f"goes through {answered.provider}" if answered.provider else "is kept in the local Maildir"
    sys.stdout.write(
        f"\nWrote {target} (a login with a generated password; mail {where}).\n\n"
        + _SETTINGS.format(port=answered.port, user=answered.sender, password=password)
        + "\nNext\n\n"
        + _start(target, f"{command} up{named}")
        + f"  {command} test{named} --to {quote(answered.sender)}\n"
        "      a real mail to yourself, followed to the remote server's reply\n"
        f"  {command} config keys\n"
        "      every key of the configuration, with its default\n"
    )


def _start(target: Path, by_hand: str) -> str:
    if target == _SYSTEM and _UNIT.exists():
        return (
            "  systemctl enable --now mailer.service mailer-send.timer mailer-send.path "
            "mailer-monitor.service\n"
            "      receive and send, now and after each boot\n"
        )
    return f"  {by_hand}\n      receive and send, in this terminal; the next one in another\n"


def _command_name() -> str:
    """Return how to type this program's name: `mailer` if it is in PATH, else the way it was started."""
    started = Path(sys.argv[0])
    found = shutil.which("mailer")
    if started.name != "mailer" or (found and Path(found).resolve() == started.resolve()):
        return "mailer"
    try:
        return str(started.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(started)


def _is_found(target: Path) -> bool:
    """Return whether the programs find the file without --config."""
    try:
        return find(None, os.environ).absolute() == target
    except ConfigError:
        return False
