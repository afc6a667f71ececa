"""One message's whole story: from its file, or, once that is gone, from the ledger.

`mailer spool why` and the status page tell it in the same words, those of `spool.story`.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import msgspec
from msgspec.structs import replace

from mailer.maillog import search
from mailer.maillog.by_id import lines_of
from mailer.maillog.ledger import Line
from mailer.spool import words
from mailer.spool.entry import Corrupt
from mailer.spool.ids import earliest
from mailer.spool.journal import Event, Standing
from mailer.spool.layout import LOG, Place, Spool, Spot
from mailer.spool.scan import QUEUE, find
from mailer.spool.state import clock_guard
from mailer.spool.view.inspect import Seen, View, look
from mailer.spool.view.verdict import (
    Outlook,
    gist,
    gist_of_ledger,
    last_standings,
    verdict,
    verdict_of_ledger,
)

_PASSES = 10
"""How often a message is looked for anew when it moves on before it could be read."""


class NoStory(LookupError):
    """There is nothing to tell; the text says why."""


class Unknown(NoStory):
    """Neither the spool nor the ledger knows such a message."""


class Ambiguous(NoStory):
    """Several messages begin like this."""

    def __init__(self, prefix: str, ids: list[str]) -> None:
        super().__init__(f"{prefix}: {len(ids)} messages begin like this")
        self.ids = ids


class Moving(NoStory):
    """It moves on faster than it can be read."""


class Story(msgspec.Struct, frozen=True):
    """What is known of one message."""

    id: str
    title: str
    verdict: tuple[str, ...]
    """How it stands, the most important first."""
    steps: tuple[Event, ...]
    """Everything that happened, in order."""
    gist: tuple[str, ...] = ()
    """The verdict without the list of recipients, for those that were asked about."""
    seen: Seen | None = None
    """Its file; None: that is gone."""


def _everybody(_address: str) -> bool:
    return True


def tell(spool: Spool, prefix: str, outlook: Outlook, whom: Callable[[str], bool] = _everybody) -> Story:
    """Tell the story of the message whose id begins like this.

    Args:
        spool: with the message or its ledger lines.
        prefix: of its id.
        outlook: what decides beside the message.
        whom: tells by an address whether `gist` is about that recipient.

    Raises:
        Unknown, Ambiguous, Moving: there is none to tell.
        OSError: the spool, or the ledger, cannot be read.
    """
    return _from_spool(spool, prefix, outlook, whom) or _from_ledger(spool, prefix, outlook, whom)


def _from_spool(spool: Spool, prefix: str, outlook: Outlook, whom: Callable[[str], bool]) -> Story | None:
    # A message in motion may leave between the finding and the reading; its story is then where it went.
    for _ in range(_PASSES):
        found = find(spool, prefix, (*QUEUE, Place.SENT))
        if not found:
            return None
        if len(found) > 1:
            raise Ambiguous(prefix, sorted(spot.name for spot in found))
        if seen := look(spool, found[0]):
            steps = tuple(_steps(spool, found[0]))
            how = replace(outlook, fate=cache(partial(_fate, spool)))
            told = (*verdict(seen, steps, how), *_waits_for_clock(spool, seen))
            brief = (*gist(seen, steps, how, whom), *_waits_for_clock(spool, seen))
            return Story(seen.id, _title(seen), told, _named(steps, outlook), brief, seen)
    raise Moving(f"{prefix}: it moves on faster than it can be read; try again")


def _fate(spool: Spool, notice: str) -> Standing | None:
    """Find how a notification of ours, which has one recipient, stands."""
    for spot in find(spool, notice, (*QUEUE, Place.SENT)):
        seen = look(spool, spot)
        if seen and seen.entry:
            return next(iter(seen.entry.state.standings), None)
    return next(iter(last_standings(map(of_ledger, _lines(spool, notice)))), None)


def _waits_for_clock(spool: Spool, seen: Seen) -> Iterator[str]:
    """Say that a message which waits is not given up while the clock is not believed."""
    mark = clock_guard.read(spool)
    if mark and mark.doubt and seen.spot.place in {Place.NEW, Place.RETRY}:
        said = clock_guard.describe(mark.doubt)
        yield f"{said[0].upper()}{said[1:]}."


def _title(seen: Seen) -> str:
    if seen.entry is None:
        return f"{seen.id} in {seen.spot.place}/"
    received = words.moment(seen.entry.block.received)
    sender = words.address(seen.entry.envelope.sender)
    return f"{seen.id} in {seen.spot.place}/, from {sender}, received {received}"


def _steps(spool: Spool, spot: Spot) -> list[Event]:
    """Read the journal; of a file that has none to read, or has gone, the ledger."""
    try:
        with View.open(spool, spot) as view:
            return view.events(view.entry())
    except (FileNotFoundError, Corrupt):
        return list(map(of_ledger, _lines(spool, spot.name)))


def _from_ledger(spool: Spool, prefix: str, outlook: Outlook, whom: Callable[[str], bool]) -> Story:
    lines = list(_lines(spool, prefix))
    ids = sorted({line.id for line in lines})
    if not ids:
        raise Unknown(f"{prefix}: no such message, neither in the spool nor in the ledger")
    if len(ids) > 1:
        raise Ambiguous(prefix, ids)
    steps = tuple(map(of_ledger, lines))
    title = f"{ids[0]} is no longer in the spool"
    told = tuple(verdict_of_ledger(steps, outlook))
    brief = tuple(gist_of_ledger(steps, outlook, whom))
    return Story(ids[0], title, told, _named(steps, outlook), brief)


def _named(steps: tuple[Event, ...], outlook: Outlook) -> tuple[Event, ...]:
    return tuple(replace(step, hop=outlook.name(step.hop)) if step.hop else step for step in steps)


def _lines(spool: Spool, prefix: str) -> Iterator[Line]:
    """Stream the ledger's lines of the messages whose id begins like this."""
    query = search.Query(id=prefix, nothing_before=earliest(prefix))
    return (found.line for found in lines_of(partial(spool.directory, LOG), query))


def of_ledger(line: Line) -> Event:
    """Read a line of the ledger as the journal would have it."""
    return Event(
        at=line.at,
        event=line.event,
        to=line.to,
        hop=line.relay,
        reply=line.reply,
        attempt=line.attempt,
        next=line.next,
        tls=line.tls,
        reason=line.reason,
        by=line.by,
        notice=line.notice,
        about=line.about,
    )
