"""List the keys of the configuration, read from the model: type, bounds and default of each.

For documents and `mailer config keys`; loading a configuration does not need this.
"""

import types
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from mailer.config.key_types import Bytes, Milliseconds, Seconds
from mailer.config.model import Config
from mailer.config.secrets import Secret


class Kind(StrEnum):
    """What a value is, or each member of a list or table."""

    BOOLEAN = "boolean"
    NUMBER = "number"
    DURATION = "duration"
    """A plain number is in seconds."""
    MILLISECONDS = "milliseconds"
    """A duration of which a plain number is in milliseconds."""
    SIZE = "size"
    TEXT = "text"
    CHOICE = "choice"
    PATH = "path"
    SECRET = "secret"  # noqa: S105 - a kind of value
    OBJECT = "object"


class Form(StrEnum):
    """How many values a key has."""

    ONE = "one"
    LIST = "list"
    ONE_OR_LIST = "one or list"
    TABLE = "table"
    """An object with any keys, such as `aliases`."""


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the configuration."""

    path: str
    """`retry.maxAge`; `[]` marks a list of objects, as in `listeners[].port`."""
    kind: Kind
    form: Form = Form.ONE
    choices: tuple[str, ...] = ()
    object: bool = False
    """Whether an object may stand instead of a value; its keys are listed as well."""
    least: float | None = None
    most: float | None = None
    above_zero: bool = False
    """Whether a duration of 0 is refused."""
    required: bool = False
    default: bool | int | str | list[str] | dict[str, str] | None = None
    """As in a JSON file, durations and sizes with a unit; None: the key is required, or null by default."""

    @property
    def empty(self) -> bool:
        """Whether the default is empty, null or 0, so that its meaning needs words."""
        return not self.required and self.default is not False and not self.default


_KINDS: dict[Any, Kind] = {
    bool: Kind.BOOLEAN,
    int: Kind.NUMBER,
    str: Kind.TEXT,
    Seconds: Kind.DURATION,
    Milliseconds: Kind.MILLISECONDS,
    Bytes: Kind.SIZE,
    Path: Kind.PATH,
    Secret: Kind.SECRET,
}


def keys() -> tuple[Key, ...]:
    """Return every key in the order of the model; objects within objects only by their keys."""
    return tuple(_group(Config, Config(), ""))


def _group(kind: type[msgspec.Struct], defaults: msgspec.Struct | None, prefix: str) -> Iterator[Key]:
    """Yield the keys of an object.

    Args:
        kind: its type.
        defaults: the object that stands if the file has none; None: a member of a list, which has only the
            defaults of its type.
        prefix: the object's own path, with its final dot.
    """
    for field in msgspec.structs.fields(kind):
        path = f"{prefix}{field.encode_name}"
        if defaults is not None:
            yield from _field(field.type, path, getattr(defaults, field.name), required=False)
        elif field.default_factory is not msgspec.NODEFAULT:
            yield from _field(field.type, path, field.default_factory(), required=False)
        else:
            required = field.default is msgspec.NODEFAULT
            yield from _field(field.type, path, None if required else field.default, required=required)


# `kind` is Any because the types are data here, as in `decode`.
def _field(kind: Any, path: str, default: object, *, required: bool) -> Iterator[Key]:  # noqa: ANN401
    if _is_group(kind):
        yield from _group(kind, default if isinstance(default, kind) else None, f"{path}.")
        return
    # `X | None`, `X | Object | None`, `Object | None` or `X | list of X`
    alternatives = [each for each in _alternatives(kind) if each is not types.NoneType]
    inner = next(filter(_is_group, alternatives), None)
    plain, bounds = _bare(next((each for each in alternatives if each is not inner), inner))
    form = Form.ONE if len(alternatives) == 1 or inner else Form.ONE_OR_LIST
    if get_origin(plain) is tuple:
        plain, bounds = _bare(get_args(plain)[0])
        form = Form.LIST
    elif get_origin(plain) is dict:
        plain, form = get_args(plain)[1], Form.TABLE
    if _is_group(plain):
        inner = plain
        path += "[]" if form is Form.LIST else ""
    choices = tuple(plain) if isinstance(plain, type) and issubclass(plain, StrEnum) else ()
    yield Key(
        path=path,
        kind=Kind.CHOICE if choices else Kind.OBJECT if _is_group(plain) else _KINDS[plain],
        form=form,
        choices=tuple(map(str, choices)),
        object=inner not in {None, plain},
        least=bounds and bounds.ge,
        most=bounds and bounds.le,
        above_zero=bounds is not None and bounds.gt is not None,
        required=required,
        default=_written(default, plain),
    )
    if inner is not None:
        yield from _group(inner, None, f"{path}.")


def _alternatives(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 - see `_field`
    return get_args(kind) if get_origin(kind) in {types.UnionType, Union} else (kind,)


def _bare(kind: Any) -> tuple[Any, msgspec.Meta | None]:  # noqa: ANN401 - see `_field`
    """Return a type without its bounds, and the bounds."""
    if get_origin(kind) is Annotated:
        bare, bounds = get_args(kind)
        return bare, bounds
    return kind, None


def _is_group(kind: Any) -> bool:  # noqa: ANN401 - see `_field`
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _written(value: object, kind: Any) -> Any:  # noqa: ANN401 - see `_field`
    """Return a default as the file would have it."""
    if isinstance(value, tuple):
        return [_written(each, kind) for each in value]
    if isinstance(value, Secret):
        return ""  # the model has no other
    if isinstance(value, Path | StrEnum):
        return str(value)
    return _UNITS[kind](value) if kind in _UNITS and value is not None else value


def _duration(milliseconds: float) -> str | int:
    """Return a duration as the longest units have it, such as `5d` or `1h30m`; 0 needs none."""
    left, parts = round(milliseconds), []
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, length)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or 0


def _size(octets: int) -> str | int:
    """Return a size in the largest unit that has no fraction, such as `25MiB`; 0 needs none."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if octets and octets % length == 0:
            return f"{octets // length}{unit}"
    return f"{octets}B" if octets else 0


_UNITS: dict[Any, Callable[[Any], str | int]] = {
    Seconds: lambda seconds: _duration(seconds * 1000),
    Milliseconds: _duration,
    Bytes: _size,
}
