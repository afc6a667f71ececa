"""Print the effective configuration in the form of the file, without the secrets."""

from enum import StrEnum
from pathlib import Path

import msgspec

from mailer.config.calls import Alerts, OnEvent
from mailer.config.model import Config
from mailer.config.secrets import MASK, FromCommand, FromCredential, FromEnvironment, FromFile, Secret


def effective(config: Config) -> dict[str, object]:
    """Return every key with its effective value, ready for JSON.

    Durations and sizes are numbers in the documented unit. A secret is `********`, or the reference to where
    it is stored.
    """
    shown = _group(config)
    if config.shared_dir:
        shown["spoolDir"] = str(config.shared_dir)
    return shown


def _group(group: msgspec.Struct) -> dict[str, object]:
    plain = {field.encode_name: _plain(getattr(group, field.name)) for field in msgspec.structs.fields(group)}
    if isinstance(group, Alerts | OnEvent):
        # Arguments may contain a token, as those of a secret's command.
        plain["command"] = [*group.command[:1], *(MASK for _ in group.command[1:])]
    return plain


def _plain(value: object) -> object:
    match value:
        case msgspec.Struct():
            return _group(value)
        case tuple():
            return [_plain(member) for member in value]
        case Secret():
            return _masked(value)
        case StrEnum() | Path():
            return str(value)
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _masked(secret: Secret) -> object:
    match secret.reference:
        case FromEnvironment(name):
            return {"env": name}
        case FromFile(path):
            return {"file": str(path)}
        case FromCredential(name):
            return {"credential": name}
        case FromCommand((program, *arguments)):
            return {"command": [program, *(MASK for _ in arguments)]}  # arguments may contain a token
        case _:
            return "" if secret.empty else MASK
