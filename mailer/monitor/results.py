"""Does mail go out? Judged by what left, whatever keeps it: keys, DNS, a provider, a runner that hangs."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mailer.config.model import Config
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.monitor.queue import WAITING, Snapshot
from mailer.spool import words
from mailer.spool.journal import Standing
from mailer.spool.layout import Place, Spool
from mailer.spool.view.inspect import Seen, look

NOTHING_SENT = 3600.0
"""Seconds that mail has waited, and none has left, after which it does not go out."""
_LOOKS = 10
"""Messages of each state that are looked at, the oldest; only while nothing leaves. *0.2 ms each.*"""
_REPLY = re.compile(r"[45]\d\d[ -]")
_ADDRESS = re.compile(r"[^\s<>]+@[^\s<>]+")
"""Every user of this host may read the health, so it does not name recipients."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """One message that should have left and has not."""

    id: str
    waited: float
    """Seconds since it was accepted, or since the operator had it begin anew."""
    waiting: tuple[Standing, ...]
    """Its recipients that still wait."""


def stuck(spool: Spool, queue: Snapshot, now: float) -> tuple[Stuck, ...]:
    """Look at the oldest messages that are on their way, and return those that should have left.

    Raises:
        OSError: the spool cannot be read.
    """
    old = [place for place in WAITING if (queue[place].age(now) or 0.0) > NOTHING_SENT]
    seen = (look(spool, spot) for place in old for spot in queue[place].oldest[:_LOOKS])
    return tuple(filter(None, (_stuck(each, now) for each in seen)))


def _stuck(seen: Seen | None, now: float) -> Stuck | None:
    if seen is None or seen.entry is None:
        return None
    state = seen.entry.state
    # An uncertain recipient may have the mail; scheduled mail has not been tried, for good reason.
    waiting = tuple(each for each in state.open if each.status is not Status.UNCERTAIN)
    scheduled = seen.spot.place is Place.RETRY and not state.attempts
    waited = now - state.since
    return Stuck(seen.id, waited, waiting) if waiting and not scheduled and waited > NOTHING_SENT else None


def only_theirs(found: tuple[Stuck, ...], config: Config) -> bool:
    """Tell whether the recipients' own servers answered for all of it: then our side works."""
    ours = {f"{each.host}:{each.port}" for each in config.providers}
    return all(
        bool(_REPLY.match(each.reply)) and bool(each.hop) and _name(each.hop) not in ours
        for message in found
        for each in message.waiting
    )


def _name(hop: str) -> str:
    """Write a hop, `mx.example.net[192.0.2.1]:25`, without the address."""
    return re.sub(r"\[.*\]", "", hop)


def describe(found: tuple[Stuck, ...]) -> str:
    """Say how long what waits has waited, and what is said of most of it."""
    oldest = max(found, key=lambda each: each.waited)
    said = Counter(filter(None, map(_said, _standings(found)))).most_common(1)
    cause = f": {said[0][0]}" if said else ", and was not tried"
    return f"{words.duration(oldest.waited)}{cause} (mailer spool why {oldest.id})"


def _standings(found: tuple[Stuck, ...]) -> Iterator[Standing]:
    return (each for message in found for each in message.waiting)


def _said(standing: Standing) -> str:
    at = f" at {standing.hop}" if standing.hop else ""
    return _ADDRESS.sub("(address)", printable(standing.reply, 300)) + at if standing.reply else ""
