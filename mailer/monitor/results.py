"""Detect that no mail is sent, whatever the cause: keys, DNS, a provider, a runner that hangs."""

import re
from collections import Counter
from dataclasses import dataclass

from mailer.config.model import Config
from mailer.mail.duration import duration
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.monitor.queue import WAITING, Snapshot
from mailer.spool.directory import Spool
from mailer.spool.layout import Place
from mailer.spool.message_state import Standing
from mailer.spool.view.inspect import Seen, look

NOTHING_SENT = 3600.0
"""Seconds that mail has waited, while none was sent, after which it counts as stuck."""
_SAMPLE = 10
"""The number of oldest messages in each place that are read, only if nothing was sent. *0.2 ms each.*"""
_REPLY = re.compile(r"[45]\d\d[ -]")
_MAILBOX = re.compile(r"[45]\d\d[ -][45]\.2\.2\b")
"""Matches replies about a full mailbox (RFC 3463 3.3), which a provider passes on. X.2.1 does not count:
Gmail's relay uses it for a customer's limit, too."""
_ADDRESS = re.compile(r"[^\s<>]+@[^\s<>]+")
"""Matches addresses, to mask them: every user of this host may read the health."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """A message that should have been sent."""

    id: str
    waited: float
    """Seconds since it was accepted, or since the operator requeued it."""
    waiting: tuple[Standing, ...]
    """Its recipients that are still to be tried."""


def stuck(spool: Spool, queue: Snapshot, now: float) -> tuple[Stuck, ...]:
    """Return those of the oldest messages in the queue that should have been sent.

    Raises:
        OSError: the spool cannot be read.
    """
    old = [place for place in WAITING if (queue[place].age(now) or 0.0) > NOTHING_SENT]
    seen = (look(spool, spot) for place in old for spot in queue[place].oldest[:_SAMPLE])
    return tuple(filter(None, (_stuck(each, now) for each in seen)))


def _stuck(seen: Seen | None, now: float) -> Stuck | None:
    if seen is None or seen.entry is None:
        return None
    state = seen.entry.state
    # Excluded are uncertain recipients, which may have the mail, and scheduled mail, which is not due yet.
    waiting = tuple(each for each in state.open if each.status is not Status.UNCERTAIN)
    scheduled = seen.spot.place is Place.RETRY and not state.attempts
    waited = now - state.since
    return Stuck(seen.id, waited, waiting) if waiting and not scheduled and waited > NOTHING_SENT else None


def only_theirs(found: tuple[Stuck, ...], config: Config) -> bool:
    """Return whether their own servers or mailboxes are why all recipients were deferred: our side works."""
    ours = {f"{each.host}:{each.port}" for each in config.providers}
    return all(
        bool(each.hop) and bool((_MAILBOX if _name(each.hop) in ours else _REPLY).match(each.reply))
        for message in found
        for each in message.waiting
    )


def _name(hop: str) -> str:
    """Return a hop such as `mx.example.net[192.0.2.1]:25` without the IP address."""
    return re.sub(r"\[.*\]", "", hop)


def describe(found: tuple[Stuck, ...]) -> str:
    """Return how long the oldest message has waited, the most frequent reply, and a message that got it."""
    oldest = max(found, key=lambda each: each.waited)
    said = Counter(filter(None, (_said(each) for message in found for each in message.waiting)))
    if not said:
        return f"{duration(oldest.waited)}, and was not tried (mailer spool why {oldest.id})"
    [(cause, _)] = said.most_common(1)
    got_it = [each for each in found if cause in map(_said, each.waiting)]
    shown = max(got_it, key=lambda each: each.waited)
    between = ": " if shown is oldest else "; the most frequent cause is "
    return f"{duration(oldest.waited)}{between}{cause} (mailer spool why {shown.id})"


def _said(standing: Standing) -> str:
    at = f" at {standing.hop}" if standing.hop else ""
    return _ADDRESS.sub("(address)", printable(standing.reply, 300)) + at if standing.reply else ""
