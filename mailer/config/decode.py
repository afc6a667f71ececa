"""Convert plain objects to the model, driven by the model's own types; find every problem, repeat no value.

The walk follows the document: each object is matched to its struct, and each leaf is converted separately, so
that one bad value does not hide the next. A bad value is left at its default while the walk continues;
callers must look at `problems` before they use the result.
"""

import re
import types
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec

from mailer.config import key_types
from mailer.config.document import TWICE, Twice
from mailer.config.problem import ConfigError, Problem
from mailer.config.secrets import FromCommand, FromCredential, FromEnvironment, FromFile, Secret, Source
from mailer.config.trust import Owners
from mailer.mail.reply import printable

MOST_PROBLEMS = 100
"""The walk ends after this many: more help nobody, and finding the nearest key takes milliseconds each."""

NEVER_BUILT = {
    "continueOnError": "one refused recipient never stops the others",
    "workerCount": "sending.concurrency says how many messages are in flight",
    "queueSize": "the spool on disk is the queue; minFreeSpace bounds it",
    "processingTimeout": "each phase of SMTP has its own time-out, and retry.maxAge ends the attempts",
}
"""Keys that the Go relay documented and never implemented, and what replaces each; accepted anywhere."""

ZEROS: Mapping[str, object] = {
    "$.smtpPort": 0,
    "$.forwardProviders[].port": 0,
    "$.forwardPort": 0,
    "$.healthCheckPort": 0,
    "$.directDelivery.retryCount": 0,
    "$.batchSize": 0,
    "$.dkim.selector": "",
}
"""Values that the Go relay took for a key that is not there, and that mean nothing here."""

_COMMENT = ("_", "//", "$schema")
"""How keys begin by which people write comments into JSON; the Go relay ignored all unknown keys."""


class Unfit:
    """The result of a conversion that failed; the walk has recorded its problem."""


UNFIT: Final = Unfit()


class _Unit(msgspec.Struct, frozen=True):
    read: Callable[[object], float]
    expected: str
    number: type


_UNITS: dict[object, _Unit] = {
    key_types.Seconds: _Unit(
        key_types.seconds, 'a number of seconds or a string such as "5m", "1h30m" (ms, s, m, h, d, w)', float
    ),
    key_types.Milliseconds: _Unit(
        key_types.milliseconds, 'a whole number of milliseconds or a string such as "250ms"', int
    ),
    key_types.Bytes: _Unit(
        key_types.size, 'a whole number of bytes or a string such as "25MiB", "10MB"', int
    ),
}

_PLAIN = {int: "a whole number", bool: "true or false", str: "a string without control characters"}

_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),  # before int, because bool is a subclass of int
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (str, "a string"),
    (list, "a list"),
    (dict, "an object"),
    (Twice, "a key given more than once"),
    (types.NoneType, "null"),
)

_SOURCES = (
    'a string, {"env": "NAME"}, {"file": "path"}, {"credential": "name"} or {"command": ["program", ...]}'
)


class Walk:
    """Converts one document and collects its problems and warnings."""

    def __init__(self, base: Path, environ: Mapping[str, str], owners: Owners | None = None) -> None:
        """Prepare a walk.

        Args:
            base: the directory that relative paths start from.
            environ: the environment for secrets of the form `{"env": ...}`.
            owners: the users whose files may hold secrets; None: root and the current user.
        """
        self._base = base
        self._environ = environ
        self._owners = owners
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    # `kind` and the result are Any because the types are data here, read from the model at run time.
    def convert(self, kind: Any, value: object, path: str) -> Any:  # noqa: ANN401
        """Convert a value to the model's type `kind`, or record a problem for `path` and return `UNFIT`.

        Raises:
            ConfigError: there are now `MOST_PROBLEMS` problems.
        """
        if value is TWICE:
            return self._refuse(path, "this key is given more than once")
        bounds: Any = None
        if get_origin(kind) in {types.UnionType, Union}:
            kind = _alternative(get_args(kind), value)
            if kind is Path and value == "":
                return None  # the Go relay's users write "" for "no path"
        if get_origin(kind) is Annotated:
            kind, bounds = get_args(kind)
        if get_origin(kind) is tuple:
            return self._list(get_args(kind)[0], bounds, value, path)
        if get_origin(kind) is dict:
            return self._table(get_args(kind)[1], value, path)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self._struct(kind, value, path)
        special = {Secret: self._secret, Path: self._path}.get(kind)
        return special(value, path) if special else self._leaf(kind, bounds, value, path)

    def _struct(self, kind: type[msgspec.Struct], value: object, path: str) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            return self._expect(path, "an object", value)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        value = self._by_known_keys(value, list(fields), path)
        members: dict[str, Any] = {}
        whole = True
        for key, field in fields.items():
            given = value.get(key)
            if given is not None:
                member = self.convert(field.type, given, f"{path}.{key}")
                if member is not UNFIT:
                    members[field.name] = member
                elif field.required:
                    whole = False
            elif field.required:
                self._refuse(f"{path}.{key}", "this key is needed")
                whole = False
            if field.name not in members and isinstance(field.default, Path):
                members[field.name] = self._base / field.default
            if field.name not in members and isinstance(field.default, Secret):
                members[field.name] = Secret("", key=f"{path}.{key}")  # so that a check can name it
        return kind(**members) if whole else UNFIT

    def _by_known_keys(self, value: dict[str, object], known: list[str], path: str) -> dict[str, object]:
        """Return an object's values by the model's keys, of which the Go relay did not compare the case."""
        folded = {name.lower(): name for name in known}
        found: dict[str, object] = {}
        for key, given in value.items():
            where, name = f"{path}.{printable(key, 60)}", folded.get(key.lower(), "")
            if name:
                if key != name:
                    self.warnings.append(Problem(where, f"is taken for {name}: correct its spelling"))
                if _is_left_out(f"{path}.{name}", given):
                    self.warnings.append(Problem(where, "is not set, so the default applies"))
                    continue
                found[name] = TWICE if name in found else given
            elif key in NEVER_BUILT:
                self.warnings.append(Problem(where, f"has no effect and never had: {NEVER_BUILT[key]}"))
            elif key.startswith(_COMMENT):
                self.warnings.append(Problem(where, "is ignored, as a comment"))
            else:
                self._refuse(where, f"unknown key; the nearest known one is {_nearest(key, known)}")
        return found

    def _list(self, kind: object, bounds: Any, value: object, path: str) -> Any:  # noqa: ANN401
        if not isinstance(value, list):
            return self._expect(path, "a list", value)
        if bounds and len(value) < bounds.min_length:
            return self._refuse(path, f"expected a list of at least {bounds.min_length}, got a shorter one")
        members = [self.convert(kind, member, f"{path}[{at}]") for at, member in enumerate(value)]
        return tuple(member for member in members if member is not UNFIT)

    def _table(self, kind: object, value: object, path: str) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            return self._expect(path, "an object", value)
        members = {
            key: self.convert(kind, member, f"{path}.{printable(key, 60)}") for key, member in value.items()
        }
        return {key: member for key, member in members.items() if member is not UNFIT}

    def _leaf(self, kind: Any, bounds: Any, value: object, path: str) -> Any:  # noqa: ANN401
        expected = _expected(kind, bounds)
        unit = _UNITS.get(kind)
        plain, form = value, kind
        if isinstance(value, str) and not _clean(value):
            return self._refuse(path, f"expected {expected}, got one with control characters")
        try:
            if unit:
                plain, form = unit.read(value), unit.number
            made = msgspec.convert(plain, Annotated[form, bounds] if bounds else form)
        except (ValueError, msgspec.ValidationError):  # their texts would repeat the value
            return self._refuse(path, f"expected {expected}, got {_misfit(kind, value)}")
        return made

    def _path(self, value: object, path: str) -> Any:  # noqa: ANN401
        if not isinstance(value, str) or not value or not _clean(value):
            return self._expect(path, "a path", value)
        return self._base / value

    def _secret(self, value: object, path: str) -> Any:  # noqa: ANN401
        source = self._source(value)
        if source is None:
            return self._expect(path, _SOURCES, value)
        return Secret(source, key=path, environ=self._environ, owners=self._owners)

    def _source(self, value: object) -> Source | None:
        if isinstance(value, str):
            return value if _encodable(value) else None
        return self._reference(value) if isinstance(value, dict) and len(value) == 1 else None

    def _reference(self, value: dict[str, object]) -> Source | None:
        match value:
            case {"env": str(name)} if name and _clean(name):
                return FromEnvironment(name)
            case {"file": str(name)} if name and _clean(name):
                return FromFile(self._base / name)
            # Only a plain name: systemd's credentials are files in one directory, which it must not leave.
            case {"credential": str(name)} if _clean(name) and name.strip(".") and "/" not in name:
                return FromCredential(name)
            case {"command": [str(program), *arguments]} if program and _clean(program):
                words = [word for word in arguments if isinstance(word, str) and _clean(word)]
                if len(words) == len(arguments):
                    return FromCommand((self._program(program), *words))
        return None

    def _program(self, program: str) -> str:
        """Make a program with a slash relative to the configuration; a bare name is looked up in PATH."""
        return str(self._base / program) if "/" in program else program

    def _expect(self, path: str, expected: str, value: object) -> Unfit:
        return self._refuse(path, f"expected {expected}, got {_kind(value)}")

    def _refuse(self, path: str, message: str) -> Unfit:
        self.problems.append(Problem(path, message))
        if len(self.problems) >= MOST_PROBLEMS:
            raise ConfigError((*self.problems, Problem("$", "and perhaps more; correct these first")))
        return UNFIT


def _is_left_out(path: str, given: object) -> bool:
    zero = ZEROS.get(re.sub(r"\[\d+\]", "[]", path))
    return zero is not None and type(given) is type(zero) and given == zero


def _alternative(kinds: tuple[Any, ...], value: object) -> Any:  # noqa: ANN401 - as above
    """Choose the type in `X | None`, `X | Object | None` or `X | list` that fits a non-null value."""
    if isinstance(value, list):
        return next((kind for kind in kinds if _is_list(kind)), kinds[0])
    objects = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    return objects[0] if objects and isinstance(value, dict) else kinds[0]


def _is_list(kind: Any) -> bool:  # noqa: ANN401 - as above
    return get_origin(get_args(kind)[0] if get_origin(kind) is Annotated else kind) is tuple


def _expected(kind: Any, bounds: Any) -> str:  # noqa: ANN401 - as above
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "one of " + ", ".join(f'"{member}"' for member in kind)
    expected = _UNITS[kind].expected if kind in _UNITS else _PLAIN[kind]
    if bounds is None:
        return expected
    if bounds.min_length is not None:
        return f"{expected}, not empty"
    if bounds.gt is not None:
        return f"{expected}, more than {bounds.gt}"
    return f"{expected}, from {bounds.ge}" + ("" if bounds.le is None else f" to {bounds.le}")


def _misfit(kind: object, value: object) -> str:
    """Describe a bad leaf: by its kind, or, if the kind is right, as a bad value of it."""
    if isinstance(value, str) and value and kind not in _PLAIN:
        return "another string"
    if isinstance(value, int) and not isinstance(value, bool) and (kind is int or kind in _UNITS):
        return "one out of range"
    return _kind(value)


def _kind(value: object) -> str:
    """Name the kind of a value, which is all that a message may contain of it."""
    if value == "":
        return "an empty string"
    for kind, name in _KINDS:
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__}"  # TOML's date, time and datetime


def _nearest(key: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415 - only for a mistake

    folded = {name.lower(): name for name in known}  # wrong case is the most likely mistake
    return folded[difflib.get_close_matches(printable(key, 60).lower(), folded, n=1, cutoff=0)[0]]


def _encodable(text: str) -> bool:
    """Return whether a text can be UTF-8; JSON can express lone surrogates, which cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clean(text: str) -> bool:
    """Return whether a text has no C0 controls or DEL, which could end an SMTP command, path or log line."""
    return _encodable(text) and not any(character < " " or character == "\x7f" for character in text)
