"""What the header asks of us alone: the fields Idempotency-Key and Latest-Delivery-Time.

Latest-Delivery-Time (RFC 2156, registered by RFC 4021) is when the message is not to be delivered any more.
The parameter BY of RFC 2852 forbids to hand it to a server that does not know it, which is nearly every one.
"""

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from mailer.mail import clock, header
from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.content.idempotency import key_of

_LATEST = b"latest-delivery-time"
_LONGEST = 100
"""Octets of a time."""
_LAST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""Seconds since the epoch; later times cannot all be written."""


class Wishes(msgspec.Struct, frozen=True):
    """What a sender wants done with one message."""

    key: str = ""
    """Its idempotency key; empty: it has none."""
    expires: float = 0.0
    """When it is not to be delivered any more, in seconds since the epoch; 0: whenever it can be."""


_NONE = Wishes()


def wishes(head: bytes, now: float, *, obey_keys: bool) -> Wishes | Reply:
    """Read them from a header; or return the reply that refuses the message.

    Args:
        head: without the empty line.
        now: seconds since the epoch.
        obey_keys: idempotency keys mean something.
    """
    key = key_of(head) if obey_keys else ""
    if isinstance(key, Reply):
        return key
    expires = _latest(head, now)
    if isinstance(expires, Reply):
        return expires
    return Wishes(key, expires) if key or expires else _NONE


def _latest(head: bytes, now: float) -> float | Reply:
    if _LATEST not in head.lower() or not (values := header.values(head, _LATEST)):
        return 0.0
    value = b" ".join(values[0].split())
    at = _time(value.decode("ascii", "replace")) if len(values) == 1 and len(value) <= _LONGEST else None
    if at is None or at >= _LAST:
        return replies.BAD_LATEST
    return at if at > now else replies.TOO_LATE


def _time(text: str) -> float | None:
    """Read a time as RFC 5322 or RFC 3339 writes it."""
    with suppress(ValueError):
        return clock.seconds(text)
    with suppress(ValueError, TypeError, OverflowError):
        moment = parsedate_to_datetime(text)
        # RFC 5322 3.3: -0000 is UTC, from a host that does not tell its zone.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
