"""How the queue is put into words and columns for people."""

import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from mailer.mail import clock
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.spool.layout import full_minute

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_PUNCTUAL = 120.0
"""Seconds after which a due message is late: cron runs each minute."""
_PENDING = Status.PENDING
_LONGEST_REPLY = 300
"""Characters of a reply in a listing; `show` and `why` have all of it."""


def duration(seconds: float) -> str:
    """Write a duration in its two largest units: `45s`, `3m20s`, `2d4h`."""
    return _duration(max(0, round(seconds)))


# The messages of one bucket are due within the same minute.
@lru_cache(maxsize=256)
def _duration(left: int) -> str:
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts or size == 1:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return "".join(part for part in parts if not part.startswith("0") or len(parts) == 1)


def age(seconds: float) -> str:
    """Write a duration in its largest unit, at most four characters wide for 27 years."""
    return _age(int(seconds))


# A long listing has messages of many ages, most of them of some that it has just had.
@lru_cache(maxsize=4096)
def _age(seconds: int) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return "0s"


@lru_cache(maxsize=256)
def size(count: int) -> str:
    """Write a number of bytes at most five characters wide: `512B`, `1.2K`, `25M`."""
    amount = float(count)
    for unit in "BKMGT":
        if amount < 999.5:
            return f"{amount:.1f}{unit}" if unit != "B" and amount < 9.95 else f"{amount:.0f}{unit}"
        amount /= 1024
    return f"{amount:.0f}P"


def moment(seconds: float) -> str:
    """Write a time to the second, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def moment_of(at: str) -> str:
    """Write a time that the journal or the ledger has; what is none, as it stands."""
    try:
        return moment(clock.seconds(at))
    except ValueError:
        return at


def tried_at(due: str) -> str:
    """Write when something is tried that the journal or the ledger calls due: at its bucket's minute."""
    try:
        return moment(full_minute(clock.seconds(due)))
    except ValueError:
        return due


def until(seconds: float, now: float) -> str:
    """Say when something that is due at `seconds` is tried: its bucket's minute counts."""
    tried = full_minute(seconds)
    return f"in {duration(tried - now)}" if tried > now else "at the next run"


def due(seconds: float, now: float) -> str:
    """Say when something that is due at `seconds` is tried next, or since when it should have been."""
    return (
        f"due since {moment(full_minute(seconds))}"
        if is_late(seconds, now)
        else f"next {until(seconds, now)}"
    )


def is_late(due: float | None, now: float) -> bool:
    """Tell whether something that was due should have been tried; None: it is not due at a time."""
    return due is not None and now - full_minute(due) >= _PUNCTUAL


def scheduled(seconds: float, now: float) -> str:
    """Say until when a message waits because its sender wants that; this time is still to come."""
    tried = full_minute(seconds)
    return f"scheduled until {moment(tried)}, in {duration(tried - now)}"


def address(text: str) -> str:
    """Write an address without brackets; only the null sender is written `<>`."""
    return printable(text, 320) or "<>"


def recipients(first: str, statuses: Sequence[Status]) -> str:
    """Name the first recipient, count the others, and say how they stand unless nothing was tried yet."""
    first = address(first)
    if len(statuses) == 1:
        status = statuses[0]
        return first if status is _PENDING else f"{first} [{status.value}]"
    named = f"{first} +{len(statuses) - 1}"
    counts = Counter(statuses)
    if set(counts) == {Status.PENDING}:
        return named
    return f"{named} [{', '.join(f'{counts[status]} {status}' for status in Status if counts[status])}]"


def reply(text: str) -> str:
    """Write a reply as far as a listing has room for it."""
    return printable(text, _LONGEST_REPLY)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
