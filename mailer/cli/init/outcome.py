"""Print the result of `mailer init`: the file written, the next commands, and settings to paste."""

import os
import shutil
import sys
from pathlib import Path
from shlex import quote

from mailer.cli.init.answers import Answers
from mailer.cli.output import json_line
from mailer.config.load import find
from mailer.config.problem import ConfigError

_SERVICES_CONFIG = Path("/etc/mailer/config.json")
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


def tell(target: Path, answers: Answers, password: str, *, as_json: bool) -> None:
    """Print the result on standard output."""
    if as_json:
        settings = {
            "host": "127.0.0.1",
            "port": answers.port,
            "username": answers.sender,
            "password": password,
        }
        made = {"config": str(target), **settings, "provider": answers.provider or ""}
        sys.stdout.write(json_line(made))
        return
    named = "" if _is_found(target) else f" --config {quote(str(target))}"
    command = quote(command_name())
    where = f"goes through {answers.provider}" if answers.provider else "is kept in the local Maildir"
    sys.stdout.write(
        f"\nWrote {target} (a login with a generated password; mail {where}).\n\n"
        + _SETTINGS.format(port=answers.port, user=answers.sender, password=password)
        + "\nNext\n\n"
        + _start(target, f"{command} up{named}")
        + f"  {command} test{named} --to {quote(answers.sender)}\n"
        "      a real mail to yourself, followed to the remote server's reply\n"
        f"  {command} config keys\n"
        "      every key of the configuration, with its default\n"
    )


def _start(target: Path, by_hand: str) -> str:
    if target == _SERVICES_CONFIG and _UNIT.exists():
        return (
            "  systemctl enable --now mailer.service mailer-send.timer mailer-send.path "
            "mailer-monitor.service\n"
            "      receive and send, now and after each boot\n"
        )
    return f"  {by_hand}\n      receive and send, in this terminal; the next one in another\n"


def command_name() -> str:
    """Return how to type this program's name: `mailer` if it is in PATH, else the way it was started."""
    started = Path(sys.argv[0])
    found = shutil.which("mailer")
    if found and (started.name != "mailer" or Path(found).resolve() == started.resolve()):
        return "mailer"
    if started.name != "mailer":
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
