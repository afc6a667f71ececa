"""Environment variables that overrule the file: those the Go relay's documentation promised."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

import msgspec

from mailer.config.decode import UNFIT, Walk
from mailer.config.model import Config
from mailer.config.secrets import Secret

OVERRIDES = {
    "SMTP_HOST": "smtp_host",
    "SMTP_PORT": "smtp_port",
    "DEFAULT_USERNAME": "default_username",
    "DEFAULT_PASSWORD": "default_password",
    "FORWARD_SMTP": "forward_smtp",
    "FORWARD_HOST": "forward_host",
    "FORWARD_PORT": "forward_port",
    "FORWARD_USERNAME": "forward_username",
    "FORWARD_PASSWORD": "forward_password",
    "FORWARD_SSL": "forward_ssl",
    "BATCH_SIZE": "batch_size",
    "BATCH_DELAY": "batch_delay",
    "ENABLE_HEALTH_CHECK": "enable_health_check",
    "HEALTH_CHECK_PORT": "health_check_port",
}

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def overridden(config: Config, environ: Mapping[str, str], walk: Walk) -> Config:
    """Apply the variables that are set and not empty (compose files pass unset ones on as empty).

    Bad ones are noted in `walk` as `environment NAME` and leave the file's value.
    """
    kinds = {field.name: field.type for field in msgspec.structs.fields(Config)}
    changes: dict[str, Any] = {}
    for variable, attribute in OVERRIDES.items():
        if text := environ.get(variable):
            kind = kinds[attribute]
            made = walk.convert(kind, _value(kind, variable, text), f"environment {variable}")
            if made is not UNFIT:
                changes[attribute] = made
    return msgspec.structs.replace(config, **changes)


def _value(kind: object, variable: str, text: str) -> object:
    """What the text would have been in a file: an environment has only strings."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if kind is Secret:
        return {"env": variable}  # it stays in the environment: no secret is then written in a file
    if kind is str:
        return text
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text
