"""Read a configuration file and parse it as JSON or TOML into plain objects, which `decode` interprets."""

from errno import EMFILE, ENFILE
from pathlib import Path
from typing import Final

from mailer.config.problem import ConfigError, Problem
from mailer.config.trust import Untrusted, read_trusted
from mailer.mail.reply import printable

LARGEST = 2**20
"""Bytes; a configuration has a few kilobytes, and a wrong path must not fill the memory."""
_HOMES = ("/home", "/root", "/run/user")


class Twice:
    """The value of a key that an object has more than once (RFC 8259 4: readers disagree on its meaning)."""


TWICE: Final = Twice()


def read(path: Path) -> tuple[bytes, int]:
    """Return the bytes of a configuration file, and the mode (st_mode) of the file that they were read from.

    Raises:
        ConfigError: it cannot be read, is larger than `LARGEST`, or another user could change it, which is
            refused because a configuration may name commands to run.
        OSError: a temporary failure: the process or the host has run out of descriptors.
    """
    try:
        data, state = read_trusted(path, LARGEST + 1)
    except Untrusted as error:
        raise _unusable(path, f"is not used: {error.strerror}") from None
    except PermissionError as error:
        import shlex  # noqa: PLC0415 - only for a message

        todo = f"type, as root: mailer config check --config {shlex.quote(str(path))}"
        raise _unusable(
            path, f"cannot be read: {error.strerror}; {todo}, which says how to correct it{_hidden(path)}"
        ) from None
    except FileNotFoundError as error:
        hidden = "" if path.parent.exists() else _hidden(path)
        raise _unusable(path, f"cannot be read: {error.strerror}{hidden}") from None
    except OSError as error:
        if error.errno in {EMFILE, ENFILE}:
            raise
        raise _unusable(path, f"cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise _unusable(path, f"is larger than {LARGEST} bytes; is it the configuration?")
    return data, state.st_mode


def _hidden(path: Path) -> str:
    """Return a hint that a service may not see files below /home (systemd.exec(5), ProtectHome=), or ""."""
    if not any(path.is_relative_to(home) for home in _HOMES):
        return ""
    return f"; a service with ProtectHome= sees nothing below {', '.join(_HOMES)}: keep it in /etc/mailer"


def parse(data: bytes, path: Path) -> object:
    """Parse TOML if the file's name ends in `.toml`, else JSON.

    Returns plain objects; in JSON, a key given twice has the value `TWICE`.

    Raises:
        ConfigError: a syntax error, with line and column; no part of the text is repeated.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise _unusable(path, "begins with a byte order mark; save it as UTF-8 without one (RFC 8259 8.1)")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        error.object = b""  # it becomes the context of the new exception, and its bytes may hold a password
        raise _unusable(path, f"is not UTF-8 at line {line}") from None
    try:
        complaint, document = _parse_toml(text) if path.suffix == ".toml" else _parse_json(text)
    except RecursionError:
        complaint, document = "is nested too deeply", None
    except ValueError:
        # Both parsers pass on a ValueError of int(): more digits than the interpreter converts.
        complaint, document = "has a number that is too large", None
    if complaint:
        raise _unusable(path, complaint)
    return document


def _parse_json(text: str) -> tuple[str, object]:
    import json  # noqa: PLC0415 - not needed for TOML

    try:
        return "", json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        # The text after a colon is the offending character (json's Python scanner), perhaps of a password.
        reason = error.msg.partition(":")[0]
        return f"is not JSON at line {error.lineno}, column {error.colno}: {reason}", None


def _parse_toml(text: str) -> tuple[str, object]:
    import re  # noqa: PLC0415 - needed for errors only; it is loaded anyway

    # Not tomllib, which does not support TOML 1.1 (inline tables over several lines, more escapes).
    import tomli  # noqa: PLC0415 - not needed for JSON

    try:
        return "", tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        # As above: "Found invalid character 'x' (at line 1, column 5)".
        reason = re.sub(r"character '.*' ", "character ", str(error), flags=re.DOTALL)
        return f"is not TOML: {reason}", None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for key, value in pairs:
        members[key] = TWICE if key in members else value
    return members


def _constant(_name: str) -> object:
    # NaN and Infinity are not JSON, but Python's parser accepts them. No key accepts NaN, so `decode` refuses
    # the value and names its path.
    return float("nan")


def _unusable(path: Path, message: str) -> ConfigError:
    return ConfigError((Problem(printable(str(path)), message),))
