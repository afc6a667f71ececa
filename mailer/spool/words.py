"""Words and columns in which the queue is shown to people."""

import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from mailer.mail import clock
from mailer.mail.duration import UNITS, duration
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.spool.layout import full_minute

_PUNCTUAL = 120.0
"""Seconds after which a due message counts as late; cron starts a run each minute."""
_ONLY = {status: f" [{status}]" if status is not Status.PENDING else "" for status in Status}
"""How the status of an only recipient is shown."""
_LONGEST_ADDRESS = 320
"""Characters; the longest that RFC 5321 allows."""
_LONGEST_REPLY = 300
"""Characters of a reply in a listing; `show` and `why` print all of it."""


def age(seconds: float) -> str:
    """Format a duration in its largest unit, in at most four characters up to 27 years."""
    return _age(int(seconds))


# Cached because in a long listing most ages occurred a few lines before.
@lru_cache(maxsize=4096)
def _age(seconds: int) -> str:
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return "0s"


@lru_cache(maxsize=256)
def size(count: int) -> str:
    """Format a number of bytes in at most five characters: `512B`, `1.2K`, `25M`."""
    amount = float(count)
    for unit in "BKMGT":
        if amount < 999.5:
            return f"{amount:.1f}{unit}" if unit != "B" and amount < 9.95 else f"{amount:.0f}{unit}"
        amount /= 1024
    return f"{amount:.0f}P"


def free(octets: int | None) -> str:
    """Say how much of a disk is free; args: octets: None if its filesystem does not say."""
    return "unknown space free" if octets is None else f"{size(octets)} free"


def moment(seconds: float) -> str:
    """Format a time to the second, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def moment_of(at: str) -> str:
    """Format a time of the journal or the ledger; return text that is not a time unchanged."""
    try:
        return moment(clock.seconds(at))
    except ValueError:
        return at


def tried_at(due: str) -> str:
    """Format when something due at `due`, in the journal or ledger, is tried: at its bucket's minute."""
    try:
        return moment(full_minute(clock.seconds(due)))
    except ValueError:
        return due


def until(seconds: float, now: float) -> str:
    """Say in how long something due at `seconds` is tried, which is at its bucket's minute."""
    tried = full_minute(seconds)
    return f"in {duration(tried - now)}" if tried > now else "at the next run"


def due(seconds: float, now: float) -> str:
    """Say when something due at `seconds` is tried next, or since when it is overdue."""
    return (
        f"due since {moment(full_minute(seconds))}"
        if is_late(seconds, now)
        else f"next {until(seconds, now)}"
    )


def is_late(due: float | None, now: float) -> bool:
    """Return whether a due message should have been tried by now; `due` is None if it has no due time."""
    return due is not None and now - full_minute(due) >= _PUNCTUAL


def scheduled(seconds: float, now: float) -> str:
    """Say until when a message waits because its sender scheduled it; that time must be still to come."""
    tried = full_minute(seconds)
    return f"scheduled until {moment(tried)}, in {duration(tried - now)}"


def address(text: str) -> str:
    """Format an address without brackets; only the null sender is written `<>`."""
    if text.isprintable() and 0 < len(text) <= _LONGEST_ADDRESS:
        return text  # Nearly every address; `printable` would take as long again.
    return printable(text, _LONGEST_ADDRESS) or "<>"


def recipients(first: str, statuses: Sequence[Status]) -> str:
    """Format the first recipient, the number of others, and their statuses unless all are pending."""
    first = address(first)
    if len(statuses) == 1:
        return first + _ONLY[statuses[0]]
    named = f"{first} +{len(statuses) - 1}"
    counts = Counter(statuses)
    if set(counts) == {Status.PENDING}:
        return named
    return f"{named} [{', '.join(f'{counts[status]} {status}' for status in Status if counts[status])}]"


def reply(text: str) -> str:
    """Format a reply, cut to the length that a listing has room for."""
    return printable(text, _LONGEST_REPLY)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
