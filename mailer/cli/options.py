"""Options and argument types that several commands share."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])
_CONFIG = "mailer.config"
_LOG_FORMAT = "mailer.log_format"


def _remember(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        # All nested contexts share one meta dictionary. The innermost --config is parsed last, so it wins.
        ctx.meta[_CONFIG] = value


def _remember_format(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[_LOG_FORMAT] = value


config_option = click.option(
    "--config",
    metavar="FILE",
    expose_value=False,
    callback=_remember,
    help="The configuration, JSON or TOML. Otherwise: $MAILER_CONFIG, ./config.json, ./config.toml, "
    "/etc/mailer/config.json, /etc/mailer/config.toml; as root only those in /etc.",
)
"""`--config FILE`, at any position on the command line."""

log_format_option = click.option(
    "--log-format",
    type=click.Choice(["logfmt", "json"]),
    expose_value=False,
    callback=_remember_format,
    help="Lines on standard error; otherwise as logFormat says.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def json_of(fields: str) -> Callable[[_Function], _Function]:
    """Make the option `--json` of a command, with help that lists the fields of its objects."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print JSON, one object a line: {fields}.")


parent_option = click.option("--parent", type=int, metavar="PID", hidden=True)
"""`--parent PID`, which `mailer up` passes to its children: they end when that process does."""

LANGUAGES = ("en", "zh-CN")

language_option = click.option(
    "--language",
    type=click.Choice(LANGUAGES),
    help="Instead of the one that LC_ALL, LC_MESSAGES or LANG names.",
)
"""`--language`, of guides and of the meanings of keys."""


def examples(*lines: str) -> str:
    """Format command lines as the examples at the end of a command's help."""
    # click wraps paragraphs, except those that begin with this character.
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def config_path() -> str | None:
    """Return the value of --config in the running command, or None."""
    path: str | None = click.get_current_context().meta.get(_CONFIG)
    return path


def log_format() -> str | None:
    """Return the value of --log-format in the running command, or None."""
    form: str | None = click.get_current_context().meta.get(_LOG_FORMAT)
    return form


DURATION_IS = 'a number with a unit of ms, s, m, h, d or w: "90s", "30m", "1h30m", "2d", "1w"'


def duration(text: str) -> float:
    """Parse a duration such as `90`, `5m`, `1h30m` or `1w`; return seconds."""
    from mailer.config import key_types  # noqa: PLC0415 - needed only when a duration is given

    try:
        return key_types.seconds_typed(text)
    except ValueError:
        raise click.BadParameter(f"a duration is {DURATION_IS}") from None


DURATION = click.types.FuncParamType(duration)


def preferred_language() -> str:
    """Return the language that the environment selects, in the order of POSIX (Base Definitions, 8.2)."""
    asked = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh-CN" if asked.startswith("zh") else "en"
