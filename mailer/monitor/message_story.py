"""Build the history of one message, from its file or, if that no longer exists, from the ledger.

`mailer spool why` and the status page print it with the same wording, that of `spool.view.story`.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import msgspec
from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.outcome import Status
from mailer.maillog import search, traces
from mailer.maillog.ledger import Line
from mailer.maillog.search import lines_of
from mailer.maillog.traces import Trace
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.ids import earliest
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import LOG, TRACES, Place, Spot
from mailer.spool.message_state import Standing
from mailer.spool.scan import QUEUE, find
from mailer.spool.state import clock_guard
from mailer.spool.view.inspect import Seen, View, look
from mailer.spool.view.ledger_verdict import gist_of_ledger, last_standings, verdict_of_ledger
from mailer.spool.view.verdict import Outlook, gist, verdict

_FAILURES = frozenset({Status.DEFERRED, Status.BOUNCED, Status.UNCERTAIN, Kind.TROUBLE, "attempt"})
_MAX_FAILURES = 50
"""The last failures whose traces are looked for."""
_MAX_TRIES = 10
"""How often to search again for a message that moves before it could be read."""


class NoStory(LookupError):
    """There is no history to show; the text says why."""


class Unknown(NoStory):
    """Neither the spool nor the ledger has a message with this id."""


class Ambiguous(NoStory):
    """Several message ids have this prefix."""

    def __init__(self, prefix: str, ids: list[str]) -> None:
        super().__init__(f"{prefix}: {len(ids)} messages begin like this")
        self.ids = ids


class Moving(NoStory):
    """The message moved each time before it could be read."""


class Story(msgspec.Struct, frozen=True):
    """The history of one message."""

    id: str
    title: str
    verdict: tuple[str, ...]
    """Sentences about its present state, the most important first."""
    steps: tuple[Event, ...]
    """All events, in order."""
    gist: tuple[str, ...] = ()
    """The verdict in brief, without the list of recipients, for the recipients that `whom` selects."""
    seen: Seen | None = None
    """Its file; None: it no longer exists."""
    traces: tuple[Trace, ...] = ()
    """What was said in sessions that failed for it or in the same way, the oldest first."""


def _everybody(_address: str) -> bool:
    return True


def tell(spool: Spool, prefix: str, outlook: Outlook, whom: Callable[[str], bool] = _everybody) -> Story:
    """Return the history of the message with this id prefix.

    Args:
        spool: the spool with the message or its ledger lines.
        prefix: the beginning of its id.
        outlook: what else affects the message, such as pauses and providers.
        whom: returns whether `gist` should cover the recipient with this address.

    Raises:
        Unknown, Ambiguous, Moving: no message was found, or several, or it keeps moving.
        OSError: the spool or the ledger cannot be read.
    """
    return _from_spool(spool, prefix, outlook, whom) or _from_ledger(spool, prefix, outlook, whom)


def _from_spool(spool: Spool, prefix: str, outlook: Outlook, whom: Callable[[str], bool]) -> Story | None:
    # A message may move between being found and being read; it is then searched for again.
    for _ in range(_MAX_TRIES):
        found = find(spool, prefix, (*QUEUE, Place.SENT))
        if not found:
            return None
        if len(found) > 1:
            raise Ambiguous(prefix, sorted(spot.name for spot in found))
        if seen := look(spool, found[0]):
            steps = tuple(_steps(spool, found[0]))
            how = replace(outlook, fate=cache(partial(_fate, spool)))
            said = _traces(spool, seen.id, steps)
            told = (*verdict(seen, steps, how), *_waits_for_clock(spool, seen), *_traced(seen.id, said))
            brief = (*gist(seen, steps, how, whom), *_waits_for_clock(spool, seen))
            return Story(seen.id, _title(seen), told, _named(steps, outlook), brief, seen, said)
    raise Moving(f"{prefix}: it moves on faster than it can be read; try again")


def _fate(spool: Spool, notice: str) -> Standing | None:
    """Return the state of a notification that we sent, which has one recipient."""
    for spot in find(spool, notice, (*QUEUE, Place.SENT)):
        seen = look(spool, spot)
        if seen and seen.entry:
            return next(iter(seen.entry.state.standings), None)
    return next(iter(last_standings(map(of_ledger, _lines(spool, notice)))), None)


def _waits_for_clock(spool: Spool, seen: Seen) -> Iterator[str]:
    """Yield a sentence that a waiting message does not expire while the clock is not trusted."""
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
    """Return the events of the journal or, if it is unreadable or the file has gone, of the ledger."""
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
    said = _traces(spool, ids[0], steps)
    told = (*verdict_of_ledger(steps, outlook), *_traced(ids[0], said))
    brief = tuple(gist_of_ledger(steps, outlook, whom))
    return Story(ids[0], title, told, _named(steps, outlook), brief, traces=said)


def _traces(spool: Spool, message_id: str, steps: tuple[Event, ...]) -> tuple[Trace, ...]:
    """Return one trace for each of the last failures, if one is kept that stands for it."""
    failures = [step for step in steps if step.event in _FAILURES and step.reply][-_MAX_FAILURES:]
    try:
        kept = traces.traces(partial(spool.directory, TRACES)) if failures else []
    except OSError:
        return ()
    alike: dict[tuple[str, str], list[Trace]] = {}
    for trace in kept:
        for _, reply in trace.failures:
            alike.setdefault(traces.likeness(trace.hop, reply), []).append(trace)
    found = set()
    for step in failures:
        if those := alike.get(traces.likeness(step.hop, step.reply)):
            found.add(_nearest(those, message_id, step))
    return tuple(sorted(found, key=lambda trace: trace.at))


def _nearest(those: list[Trace], message_id: str, step: Event) -> Trace:
    """Return the trace of the message itself, or else of any, that was written closest to an event."""
    at = _time(step.at)
    return min(those, key=lambda trace: (trace.message != message_id, abs(trace.at - at)))


def _traced(message_id: str, said: tuple[Trace, ...]) -> Iterator[str]:
    """Yield a sentence that says how to see what was said in sessions that failed, if that is kept."""
    if said:
        own = any(trace.message in {message_id, ""} for trace in said)
        session = "the session that failed" if own else "a session of other mail that failed in the same way"
        yield f"What was said in {session}: `mailer spool trace {message_id}`."


def _time(at: str) -> float:
    try:
        return clock.seconds(at)
    except ValueError:
        return 0.0


def _named(steps: tuple[Event, ...], outlook: Outlook) -> tuple[Event, ...]:
    return tuple(replace(step, hop=outlook.name(step.hop)) if step.hop else step for step in steps)


def _lines(spool: Spool, prefix: str) -> Iterator[Line]:
    """Yield the ledger's lines of all messages with this id prefix."""
    query = search.Query(id=prefix, nothing_before=earliest(prefix))
    return (found.line for found in lines_of(partial(spool.directory, LOG), query))


def of_ledger(line: Line) -> Event:
    """Convert a ledger line to the corresponding journal event."""
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
        replays=line.replays,
    )
