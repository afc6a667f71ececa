"""Message ids: ULIDs, 26 characters of Crockford's base 32 that sort by arrival.

An id has 48 bits of milliseconds, then 80 fresh random bits. There is no state to share or to lose, so a
clock that jumps back, a copied virtual machine, or two hosts on one spool do not produce the same id (an even
chance of a collision needs 2^40 ids within one millisecond).
"""

import os
import re
from collections.abc import Callable
from functools import lru_cache

from mailer.mail.lazy_pattern import compile_late

_PUT_BACK = 3600.0
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SHARES = len(_DIGITS)
_LENGTH = 26
ID = compile_late(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)
"""Matches a whole id; for long listings, where the call of `is_id` counts."""
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_IN_BASE_32 = str.maketrans(_DIGITS, "0123456789abcdefghijklmnopqrstuv")
"""Translates to the digits that `int` knows."""
_DIGIT_OF_OCTET = _DIGITS.encode() * 8

Random = Callable[[int], bytes]


def new_id(now: float, random: Random = os.urandom) -> str:
    """Return a new id for a message that arrives at `now`, in seconds since the epoch."""
    milliseconds = int(now * 1000) & (1 << 48) - 1
    # Of the rest, each octet gives one digit by its five lowest bits.
    rest = random(16).translate(_DIGIT_OF_OCTET).decode()
    first, later = _first_digits(milliseconds >> 20), milliseconds & (1 << 20) - 1
    return f"{first}{_PAIRS[later >> 10]}{_PAIRS[later & 1023]}{rest}"


# Another one every 17 minutes.
@lru_cache(maxsize=4)
def _first_digits(time: int) -> str:
    """Return the six digits of a time's upper 28 bits."""
    return "".join([_PAIRS[time >> shift & 1023] for shift in (20, 10, 0)])


def is_id(name: str) -> bool:
    """Return whether a file's name is an id; the spool ignores all other names."""
    return ID.fullmatch(name) is not None


def is_prefix(text: str) -> bool:
    """Return whether an id could begin like this, so that an operator may type it instead of the whole id."""
    return 0 < len(text) <= _LENGTH and set(text) <= set(_DIGITS)


def earliest(prefix: str) -> float:
    """Return the earliest arrival of a message whose id begins like this, in seconds since the epoch.

    An hour is subtracted, in case the clock was set back later: the search for events starts at this time.
    """
    return max(0.0, arrival(prefix.ljust(_LENGTH, "0")) - _PUT_BACK)


def arrival(message_id: str) -> float:
    """Return when an id was made, in seconds since the epoch."""
    return int(message_id[:10].translate(_IN_BASE_32), 32) / 1000


def share_of(message_id: str) -> int:
    """Return the number of the share, of `SHARES` equal ones, that an id is in: its random last digit."""
    return _DIGITS.index(message_id[-1])
