"""Options and argument types that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])
_CONFIG = "mailer.config"
_LOG_FORMAT = "mailer.log_format"


def _remember(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        # The meta dictionary is one for all nested contexts: the innermost --config is read last, and counts.
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
"""`--config FILE`, wherever it stands on the command line."""

log_format_option = click.option(
    "--log-format",
    type=click.Choice(["logfmt", "json"]),
    expose_value=False,
    callback=_remember_format,
    help="Lines on standard error; otherwise as logFormat says.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def json_of(fields: str) -> Callable[[_Function], _Function]:
    """Make `--json` of a command whose objects have these fields."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print JSON, one object a line: {fields}.")


parent_option = click.option("--parent", type=int, metavar="PID", hidden=True)
"""What `mailer up` passes to its children: end when that process does."""


def examples(*lines: str) -> str:
    """Make the end of a command's help from command lines that can be typed as they stand."""
    # click wraps paragraphs, save those that begin with this character.
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def config_path() -> str | None:
    """What --config said in the command that is running."""
    path: str | None = click.get_current_context().meta.get(_CONFIG)
    return path


def log_format() -> str | None:
    """What --log-format said in the command that is running."""
    form: str | None = click.get_current_context().meta.get(_LOG_FORMAT)
    return form


DURATION_IS = 'a number with a unit of ms, s, m, h, d or w: "90s", "30m", "1h30m", "2d", "1w"'


def duration(text: str) -> float:
    """Read `90`, `5m`, `1h30m`, `1w`; in seconds."""
    from mailer.config import units  # noqa: PLC0415 - only when one is given

    try:
        return units.seconds_typed(text)
    except ValueError:
        raise click.BadParameter(f"a duration is {DURATION_IS}") from None


DURATION = click.types.FuncParamType(duration)
