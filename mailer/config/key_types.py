"""Types of keys that many groups share, and the base class of each group.

A duration or a size is a number in the unit that the key documents, or a string with a unit. Each unit has a
separate type, so that a type checker detects seconds passed as milliseconds.
"""

from typing import Annotated, NewType

import msgspec

from mailer.mail.lazy_pattern import compile_late

Seconds = NewType("Seconds", float)
Milliseconds = NewType("Milliseconds", int)
Bytes = NewType("Bytes", int)

LONGEST = 100 * 365 * 86_400
"""Seconds of the longest duration, a century. Much longer ones would exceed the years of `datetime`."""
LARGEST = 2**63 - 1
"""Bytes of the largest file (`off_t`)."""

# At most three digits after the point, so that every duration is a whole number of microseconds and sums are
# exact. At most twelve before it, so that `int` never converts a megabyte of digits.
_PART = compile_late(r"([0-9]{1,12})(?:\.([0-9]{1,3}))?(ms|s|m|h|d|w) *")
_DURATION = compile_late(rf"(?:{_PART.pattern})+")
_NUMBER = compile_late(r"[0-9]{1,12}(?:\.[0-9]{1,3})?")
_SIZE = compile_late(r"([0-9]{1,19})(?:\.([0-9]{1,3}))? *(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")

_MICROSECONDS = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
# IEC 80000-13: KiB is 1,024 bytes, kB is 1,000. People write KB for either; it is parsed as kB.
_FACTORS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Limit = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
"""A number of messages; 0 means no limit."""
Name = Annotated[str, msgspec.Meta(min_length=1)]
Some = Annotated[Seconds, msgspec.Meta(gt=0)]
"""A duration that is not zero."""


def seconds(value: object) -> Seconds:
    """Parse a duration: a number of seconds, or a string such as `5m`, `1h30m`, `250ms`.

    Raises:
        ValueError: it is neither, is negative, or is longer than `LONGEST`; the text omits the value.
    """
    if isinstance(value, str):
        return Seconds(_microseconds(value) / 1_000_000)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a duration")  # noqa: TRY004 - callers expect a ValueError for every bad value
    if not 0 <= value <= LONGEST:  # also refuses NaN
        raise ValueError("out of range")
    return Seconds(value)


def seconds_typed(text: str) -> Seconds:
    """Parse a duration of a command line or a query: as `seconds`, or a number without a unit as text.

    Raises:
        ValueError: see `seconds`.
    """
    return seconds(float(text) if _NUMBER.fullmatch(text) else text)


def milliseconds(value: object) -> Milliseconds:
    """Parse a duration: a whole number of milliseconds, or a string such as `250ms`, `1s`.

    Raises:
        ValueError: it is neither, is negative, has a fraction of a millisecond, or exceeds `LONGEST`.
    """
    if isinstance(value, str):
        whole, rest = divmod(_microseconds(value), 1_000)
        if rest:
            raise ValueError("a part of a millisecond")
        return Milliseconds(whole)
    return Milliseconds(_whole(value, LONGEST * 1_000))


def size(value: object) -> Bytes:
    """Parse a size: a whole number of bytes, or a string such as `25MiB`, `10MB`, `64KiB`.

    Raises:
        ValueError: it is neither, is negative, has a fraction of a byte, or exceeds `LARGEST`.
    """
    if not isinstance(value, str):
        return Bytes(_whole(value, LARGEST))
    found = _SIZE.fullmatch(value)
    if not found:
        raise ValueError("not a size")
    count, fraction, unit = found.group(1), found.group(2) or "", found.group(3)
    whole, rest = divmod(int(count + fraction) * _FACTORS[unit], 10 ** len(fraction))
    if rest or whole > LARGEST:
        raise ValueError("out of range")
    return Bytes(whole)


def _microseconds(text: str) -> int:
    if not _DURATION.fullmatch(text):
        raise ValueError("not a duration")
    total = 0
    for count, fraction, unit in _PART.findall(text):
        total += int(count + fraction) * _MICROSECONDS[unit] // 10 ** len(fraction)
    if total > LONGEST * 1_000_000:
        raise ValueError("out of range")
    return total


def _whole(value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a whole number")  # noqa: TRY004 - as above
    if not 0 <= value <= most:
        raise ValueError("out of range")
    return value


class Group(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base class of each object in the configuration; its attributes are camelCase keys there."""
