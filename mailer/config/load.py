"""Find and load the configuration; report all its problems together."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from mailer.config.decode import NEVER_BUILT, UNFIT, Walk
from mailer.config.document import parse, read
from mailer.config.model import Config
from mailer.config.presets import expanded
from mailer.config.problem import ConfigError, Problem
from mailer.config.secrets import Secret
from mailer.config.trust import Owners, owners_of
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.reply import printable

PLACES = (
    Path("config.json"),
    Path("config.toml"),
    Path("/etc/mailer/config.json"),
    Path("/etc/mailer/config.toml"),
)
"""The paths that are searched when none is given.

Root does not use one in the current directory, which may belong to any user: a configuration names commands.
"""

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
"""Environment variables that override keys of the file: those that the Go relay documented."""
_HOST = compile_late(r"[a-z0-9][a-z0-9_-]{0,62}(?:\.[a-z0-9_-]{1,63}){0,8}")
_HOST_IS = (
    "expected small letters, digits, hyphens, underscores, and dots in between: it names a directory in "
    "spoolDir"
)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A valid configuration and the file that it came from."""

    config: Config
    path: Path
    """The file's absolute path."""
    mode: int
    """The file's st_mode when it was read."""
    warnings: tuple[Problem, ...]
    """Warnings about the file's syntax and keys; `checks.warnings` adds the others."""


def load(explicit: str | Path | None, environ: Mapping[str, str]) -> Loaded:
    """Load the configuration that `find` returns, with overrides from the environment.

    Args:
        explicit: the value of `--config`, or None.
        environ: the process's environment: MAILER_CONFIG, the overrides, and variables with secrets.

    Raises:
        ConfigError: it has problems, all of which are listed; programs exit with 78.
    """
    path = find(explicit, environ).absolute()
    data, mode = read(path)
    document = parse(data, path)
    walk = Walk(path.parent, environ, _owners(path.parent, document))
    made = walk.convert(Config, expanded(document), "$")
    config = _overridden(Config() if made is UNFIT else made, environ, walk)
    if config.host and not _HOST.fullmatch(config.host):
        walk.problems.append(Problem("$.host", _HOST_IS))
    if walk.problems:
        raise ConfigError(tuple(walk.problems), None if explicit or environ.get("MAILER_CONFIG") else path)
    return Loaded(config=_completed(config, path.parent), path=path, mode=mode, warnings=tuple(walk.warnings))


def find(explicit: str | Path | None, environ: Mapping[str, str], places: tuple[Path, ...] = PLACES) -> Path:
    """Return the file to read: that of `--config`, else of $MAILER_CONFIG, else the first that exists.

    A file that is named explicitly is not examined here; errors show when it is read.

    Raises:
        ConfigError: none is named and none was found; the message lists the searched paths.
    """
    if explicit:
        return Path(explicit)
    if named := environ.get("MAILER_CONFIG"):
        return Path(named)
    passed = [place for place in places if os.geteuid() == 0 and not place.is_absolute()]
    looked = [place for place in places if place not in passed]
    strangers = []
    for place in looked:
        if not place.is_absolute() and _is_a_strangers(place):
            strangers.append(place)
        elif _there(place):
            return place
    names = ", ".join(printable(str(place.absolute())) for place in looked)
    said = (
        f"none found; looked for {names}. `mailer init` writes one; one that is elsewhere is named with "
        "--config or $MAILER_CONFIG"
    )
    if strangers:
        of_whom = printable(str(strangers[0].absolute()))
        said += f". {of_whom} has none of mailer's keys and is taken for another program's"
    if there := [printable(str(place.absolute())) for place in passed if _there(place)]:
        said += f". {there[0]} is not taken: root uses none from the current directory unless it is named"
    raise ConfigError((Problem("configuration", said),))


def _overridden(config: Config, environ: Mapping[str, str], walk: Walk) -> Config:
    """Apply the variables that are set and not empty (compose files pass unset variables as empty).

    A bad value is recorded in `walk` as `environment NAME`, and the file's value stays.
    """
    kinds = {field.name: field.type for field in msgspec.structs.fields(Config)}
    changes: dict[str, Any] = {}
    for variable, attribute in OVERRIDES.items():
        if text := environ.get(variable):
            kind = kinds[attribute]
            made = walk.convert(kind, _environment_value(kind, variable, text), f"environment {variable}")
            if made is not UNFIT:
                changes[attribute] = made
    return msgspec.structs.replace(config, **changes)


def _environment_value(kind: object, variable: str, text: str) -> object:
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


def _owners(base: Path, document: object) -> Owners:
    """Return the users whose files may hold secrets: `owners_of` the spool that the document names."""
    given = document if isinstance(document, dict) else {}
    named, host = given.get("spoolDir"), given.get("host")
    path = base / (named if isinstance(named, str) and "\0" not in named else "spool")
    return owners_of(path / host if isinstance(host, str) and _HOST.fullmatch(host) else path)


def _is_a_strangers(place: Path) -> bool:
    """Return whether a file in the current directory belongs to another program, such as a web application.

    A file that cannot be read or parsed may be ours with a mistake in it, which reading it will report.
    """
    try:
        document = parse(read(place)[0], place)
    except ConfigError:
        return False
    known = {field.encode_name for field in msgspec.structs.fields(Config)} | NEVER_BUILT.keys()
    return isinstance(document, dict) and bool(document) and not known & document.keys()


def _there(place: Path) -> bool:
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # a directory that we may not enter: skipping it would hide the reason
    return True


def _completed(config: Config, base: Path) -> Config:
    """Fill in what depends on other keys: the spool of this host, and DKIM defaults."""
    dkim = config.dkim
    domain = dkim.domain or ("" if dkim.keys else config.default_username.partition("@")[2])
    key = dkim.private_key_path
    if key is None and domain:
        key = key_path(base, domain, dkim.selector)
    keys = tuple(
        msgspec.structs.replace(
            each, private_key_path=each.private_key_path or key_path(base, each.domain, each.selector)
        )
        for each in dkim.keys
    )
    completed = msgspec.structs.replace(dkim, domain=domain, private_key_path=key, keys=keys)
    spool = config.spool_dir / config.host if config.host else config.spool_dir
    return msgspec.structs.replace(config, dkim=completed, spool_dir=spool)


def key_path(base: Path, domain: str, selector: str) -> Path:
    """Return the default path of a DKIM key, relative to the configuration's directory."""
    return base / "keys" / domain / f"{selector}.private"
