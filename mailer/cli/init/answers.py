"""The answers that `mailer init` needs: from options, questions on a terminal, or defaults."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import click

from mailer.config.secrets import Secret
from mailer.mail.address import check_address

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_ROOTS_PORT, _USERS_PORT = 25, 2525
_SUBMISSION = 587


@dataclass(frozen=True, slots=True)
class Given:
    """The options of the command line; None for one that is not given."""

    sender: str | None
    port: int | None
    provider: str | None
    provider_port: int | None
    username: str | None
    local: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """Everything that a minimal configuration needs."""

    sender: str
    port: int
    provider: str
    """The provider's host; empty if mail is kept on this host."""
    provider_port: int = _SUBMISSION
    username: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))


def ask(given: Given, *, privileged: bool) -> Answers:
    """Complete the options: with questions on a terminal, otherwise with defaults.

    Raises:
        click.UsageError: an answer is needed and there is no terminal, or an option is invalid.
    """
    interactive = sys.stdin.isatty()
    sender = _answer(given.sender, "Address that your applications send as", "--sender", _address)
    usual = _ROOTS_PORT if privileged else _USERS_PORT
    port = given.port or (_number("Port on this host where they submit", usual) if interactive else usual)
    if given.local:
        return Answers(sender, port, "")
    provider = _answer(
        given.provider, "Your provider's SMTP server (empty: keep mail here, to try)", "--provider", _host
    )
    if not provider:
        return Answers(sender, port, "")
    provider_port = given.provider_port or (
        _number("Its port, 587 (STARTTLS) or 465 (TLS)", _SUBMISSION) if interactive else _SUBMISSION
    )
    username = given.username
    if username is None:
        username = _text("Login there", sender) if interactive else sender
    return Answers(sender, port, provider, provider_port, username, Secret(_password(username)))


def _answer(given: str | None, question: str, option: str, check: Callable[[str], str]) -> str:
    if given is not None:
        try:
            return check(given)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=option) from None
    if not sys.stdin.isatty():
        raise click.UsageError(f"{option} is needed: there is no terminal to ask at; see mailer init --help")
    while True:
        try:
            return check(_text(question, ""))
        except ValueError as error:
            sys.stderr.write(f"  {error}\n")


def _address(text: str) -> str:
    try:
        check_address(text)
    except ValueError as error:
        raise ValueError(f"that is not an address such as app@example.com: {error}") from None
    return text


def _host(text: str) -> str:
    if text and not _HOST.fullmatch(text):
        raise ValueError("that is not a host name such as smtp.example.com")
    return text


def _text(question: str, default: str) -> str:
    answer: str = click.prompt(question, default=default, show_default=bool(default), err=True)
    return answer.strip()


def _number(question: str, default: int) -> int:
    answer: int = click.prompt(question, default=default, type=click.IntRange(1, 65535), err=True)
    return answer


def _password(username: str) -> str:
    if not username:
        return ""
    if not sys.stdin.isatty():
        entered = sys.stdin.readline().rstrip("\n")
        if not entered:
            raise click.UsageError(
                f"the password of {username} at the provider is read from standard input, and nothing is "
                "there: pipe it in, or run this at a terminal"
            )
        return entered
    asked: str = click.prompt("Password there (not shown)", hide_input=True, err=True)
    return asked
