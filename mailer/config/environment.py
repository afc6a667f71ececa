"""Environment variables that override keys of the file: those that the Go relay documented."""

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
    """Apply the variables that are set and not empty (compose files pass unset variables as empty).

    A bad value is recorded in `walk` as `environment NAME`, and the file's value stays.
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
    """Convert a variable's text to the value that a file would have."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if kind is Secret:
        return {"env": variable}  # a reference, so that no secret counts as written in the file
    if kind is str:
        return text
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text
