"""Durations and sizes: a number in the unit that the key documents, or a string that names its own.

Each unit is a type of its own, so that a type checker sees seconds given to what takes milliseconds.
"""

from typing import NewType

from mailer.mail.lazy_pattern import compile_late

Seconds = NewType("Seconds", float)
Milliseconds = NewType("Milliseconds", int)
Bytes = NewType("Bytes", int)

LONGEST = 100 * 365 * 86_400
"""Seconds. Longer durations would leave the years that `datetime` knows; nobody's mail waits a century."""
LARGEST = 2**63 - 1
"""Bytes: `off_t`, the most that a file can hold."""

# At most three digits after the point: every duration is then a whole number of microseconds, sums are exact.
# At most twelve before: no string makes `int` work on a megabyte of digits.
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
# IEC 80000-13: KiB is 1,024 bytes, kB is 1,000. People write KB when they mean either; it is read as kB.
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


def seconds(value: object) -> Seconds:
    """Read a duration: a number of seconds, or a string such as `5m`, `1h30m`, `250ms`.

    Raises:
        ValueError: neither, negative, or longer than `LONGEST`; the value is not repeated.
    """
    if isinstance(value, str):
        return Seconds(_microseconds(value) / 1_000_000)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a duration")  # noqa: TRY004 - every bad value is a ValueError to our callers
    if not 0 <= value <= LONGEST:  # NaN compares false, too
        raise ValueError("out of range")
    return Seconds(value)


def seconds_typed(text: str) -> Seconds:
    """Read a duration as a command line or a query has it: as `seconds`, and `90` or `0.5` without a unit.

    Raises:
        ValueError: as `seconds`.
    """
    return seconds(float(text) if _NUMBER.fullmatch(text) else text)


def milliseconds(value: object) -> Milliseconds:
    """Read a duration: a whole number of milliseconds, or a string such as `250ms`, `1s`.

    Raises:
        ValueError: neither, negative, a part of a millisecond, or longer than `LONGEST`.
    """
    if isinstance(value, str):
        whole, rest = divmod(_microseconds(value), 1_000)
        if rest:
            raise ValueError("a part of a millisecond")
        return Milliseconds(whole)
    return Milliseconds(_whole(value, LONGEST * 1_000))


def size(value: object) -> Bytes:
    """Read a size: a whole number of bytes, or a string such as `25MiB`, `10MB`, `64KiB`.

    Raises:
        ValueError: neither, negative, a part of a byte, or over `LARGEST`.
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
