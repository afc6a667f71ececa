"""Reads the header fields that are requests to this server: Idempotency-Key and Latest-Delivery-Time.

Latest-Delivery-Time (RFC 2156, registered by RFC 4021) is the time after which a message must not be
delivered. The SMTP parameter BY (RFC 2852) is not used for this, because it forbids relaying to servers
without the extension, which is nearly all of them.
"""

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from mailer.mail import clock, header
from mailer.receive.content.fault import Fault
from mailer.receive.content.idempotency import FIELD, key_of

_LATEST = b"latest-delivery-time"
_MAX_TIME_LENGTH = 100
"""Octets in the value of Latest-Delivery-Time."""
_TIME_LIMIT = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""The first refused time, in seconds since the epoch; later ones cannot all be formatted."""


class Wishes(msgspec.Struct, frozen=True):
    """The requests that one message makes."""

    key: str = ""
    """Its idempotency key; empty: none."""
    expires: float = 0.0
    """After this time, in seconds since the epoch, the message must not be delivered; 0: no limit."""


_NONE = Wishes()


def wishes(head: bytes, now: float, *, obey_keys: bool) -> Wishes | Fault:
    """Read the requests from a header, or return the fault for which to refuse the message.

    Args:
        head: the header without the empty line.
        now: seconds since the epoch.
        obey_keys: whether to read Idempotency-Key.
    """
    # `find`, because `in` takes 1 us: for bytes, CPython raises and clears a TypeError first.
    lowered = head.lower()
    if lowered.find(FIELD) < 0 and lowered.find(_LATEST) < 0:
        return _NONE
    key = key_of(head) if obey_keys else ""
    if isinstance(key, Fault):
        return key
    expires = _latest(head, now)
    if isinstance(expires, Fault):
        return expires
    return Wishes(key, expires) if key or expires else _NONE


def _latest(head: bytes, now: float) -> float | Fault:
    if not (values := header.values(head, _LATEST)):
        return 0.0
    value = b" ".join(values[0].split())
    at = (
        _time(value.decode("ascii", "replace"))
        if len(values) == 1 and len(value) <= _MAX_TIME_LENGTH
        else None
    )
    if at is None or at >= _TIME_LIMIT:
        return Fault.BAD_LATEST
    return at if at > now else Fault.TOO_LATE


def _time(text: str) -> float | None:
    """Parse a time in the format of RFC 5322 or RFC 3339; None if it is neither."""
    text, later = clock.without_leap_second(text)
    with suppress(ValueError):
        return clock.seconds(text) + later
    with suppress(ValueError, TypeError, OverflowError):
        moment = parsedate_to_datetime(text)
        # RFC 5322 3.3: -0000 is UTC, from a host that does not reveal its time zone.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() + later
    return None
