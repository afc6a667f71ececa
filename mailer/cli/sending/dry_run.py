"""`mailer-send --dry-run`: print what a run would try, and through which routes, without touching anything.

It is a separate module so that runs from cron need not import it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice

from mailer.cli.obstacles import report_obstacles
from mailer.cli.output import json_line
from mailer.cli.spool import records
from mailer.config.model import Config
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.send.backoff import Backoff
from mailer.send.routes.directions import Directions, Way, keeps_mail, mail_of
from mailer.send.routes.hops import held_in_doubt, target_name
from mailer.send.staging import Staging
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.due import due_buckets
from mailer.spool.layout import Place, Spot
from mailer.spool.message_state import Standing
from mailer.spool.scan import names
from mailer.spool.view.inspect import Seen, View, look
from mailer.spool.view.obstacles import next_attempt

ORPHANED, NEW, DUE = "orphaned", "new", "due"
"""Why a message would be claimed: its runner died; it is in `new/`; its retry is due."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that a run would claim."""

    why: str
    seen: Seen
    due: tuple[Standing, ...]
    """The recipients that would be tried; empty if the file would only be moved to where its journal says."""
    objection: str = ""
    """Why it would be held instead of tried; empty if it would be tried."""


def dry_run(config: Config, spool: Spool, now: float, *, limit: int | None, as_json: bool) -> None:
    """Print one line for each message that a run would claim, in the order of the run."""
    directions = Directions(config)
    staging = None if keeps_mail(config) else Staging.of(config)
    horizon = Backoff.of(config.retry).horizon
    keeps = report_obstacles(config, spool)
    taken = islice(_taken(spool, now, horizon, staging, config), limit)

    def courses(one: Taken) -> list[Course]:
        return _courses(one, spool, directions, config)

    if as_json:
        sys.stdout.writelines(json_line(_record(one, courses(one))) for one in taken)
        return
    count = 0
    for one in taken:
        count += 1
        sys.stdout.write(f"{one.seen.id} {one.why:8}  {printable(_describe(one, courses(one)), 4000)}\n")
    expected = next_attempt(None, keeps)
    when = f" ({expected.words(now)})" if count and expected.obstacle else ""
    sys.stdout.write(f"{words.count(count, 'message')} would be taken{when}; nothing was touched\n")


def _taken(
    spool: Spool, now: float, horizon: float, staging: Staging | None, config: Config
) -> Iterator[Taken]:
    for why, spot in _spots(spool, now, horizon):
        seen = look(spool, spot)
        if seen is None or seen.claimed:
            continue
        state = seen.entry.state if seen.entry else None
        due = state.due(now, horizon) if state and not state.held else ()
        objection = staging.objection(seen.entry.envelope) if staging and seen.entry and due else ""
        if state and due and not objection:
            objection = held_in_doubt(state.standings, config)
        yield Taken(why, seen, () if objection else due, objection)


def _spots(spool: Spool, now: float, horizon: float) -> Iterator[tuple[str, Spot]]:
    # Where renames may be torn, a claimed message may keep its name in new/ in addition to that in cur/.
    claimed = set(names(spool, Place.CUR.value))
    for name in claimed:
        yield ORPHANED, Spot(Place.CUR, name)
    for name in names(spool, Place.NEW.value):
        if name not in claimed:
            yield NEW, Spot(Place.NEW, name)
    for bucket in due_buckets(spool, now, horizon):
        for name in names(spool, f"{Place.RETRY}/{bucket}"):
            yield DUE, Spot(Place.RETRY, name, bucket)


@dataclass(frozen=True, slots=True)
class Course:
    """The delivery that would be tried for one recipient."""

    address: str
    rule: str
    """The rule of `routes` that matches; empty if none does."""
    through: tuple[str, ...]
    """The next hops, in the order in which they are tried."""
    reason: str
    """Why there is no next hop; empty if there is one."""


def _courses(one: Taken, spool: Spool, directions: Directions, config: Config) -> list[Course]:
    entry = one.seen.entry
    if entry is None:
        return []

    def read(offset: int, length: int) -> bytes:
        with suppress(FileNotFoundError), View.open(spool, one.seen.spot) as view:
            return view.read(entry, offset, length)
        return b""  # A runner has moved the file since.

    mail = mail_of(entry, read)
    return [_course(standing, directions.of(mail, standing.address), config) for standing in one.due]


def _course(standing: Standing, way: Way, config: Config) -> Course:
    if standing.status is Status.UNCERTAIN:
        # An uncertain recipient is tried again at the same hop only.
        return Course(standing.address, "", (standing.hop,), "")
    through = tuple(target_name(target, config) for target in way.targets)
    return Course(standing.address, way.rule, through, way.hold or way.waits)


def _describe(one: Taken, courses: Sequence[Course]) -> str:
    entry = one.seen.entry
    if entry is None:
        return f"would be moved to corrupt/ as unreadable: {one.seen.reason}"
    sender = words.address(entry.envelope.sender)
    if one.objection:
        return f"{sender}: would be held: {one.objection}"
    if not one.due:
        return (
            f"{sender}: no recipient is to be tried; it would be moved to where its journal says it belongs"
        )
    ways: dict[Course, list[str]] = {}
    for course in courses:
        ways.setdefault(replace(course, address=""), []).append(words.address(course.address))
    return f"{sender} -> " + "; ".join(
        f"{', '.join(to)} through {', then '.join(way.through) or f'nothing: {way.reason}'}"
        + (f" ({way.rule})" if way.rule and way.through else "")
        for way, to in ways.items()
    )


def _record(one: Taken, courses: Sequence[Course]) -> records.Record:
    entry = one.seen.entry
    return {
        "id": one.seen.id,
        "why": one.why,
        "sender": entry.envelope.sender if entry else None,
        "attempt": entry.state.attempts + 1 if entry else None,
        "recipients": [asdict(course) for course in courses],
        "reason": one.seen.reason or one.objection,
    }
