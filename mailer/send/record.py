"""Record what an attempt does: in the message's journal first, then in the ledger.

The move (see `settle`) comes last, so at any instant the file itself has the status of every recipient. A
runner that takes over from a dead one decides from that alone.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from itertools import repeat
from operator import attrgetter

from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status, was_asked
from mailer.send.context import RunContext
from mailer.send.outcome_lines import SPENT, TRIED_AGAIN, JournalBound, grouped, room_for_outcome
from mailer.send.report import Report
from mailer.send.routes.directions import lost_reply
from mailer.spool import journal
from mailer.spool.fold import advance
from mailer.spool.journal import OVERDUE, Event, Kind
from mailer.spool.message_state import Standing
from mailer.spool.run.claim import Claim

_SENT, _BOUNCED, _UNCERTAIN = Status.SENT, Status.BOUNCED, Status.UNCERTAIN
_COMMITTING = Kind.COMMITTING

# `map` with one of these takes a third of the time of a list comprehension, when there is one element.
_address, _status, _kind = attrgetter("address"), attrgetter("status"), attrgetter("event")

_DURABLE = {Kind.SENT, Kind.COMMITTING}
"""Lines that must be durable, because without them a power cut would lead to a duplicate delivery."""

LATE = "its Latest-Delivery-Time has passed"


class Record:
    """The state of a claimed message, and the writer of its journal.

    Every method that writes raises OSError if it cannot. Then nothing more may be sent, since it could not be
    recorded. Lines written before remain valid.
    """

    def __init__(self, claim: Claim, context: RunContext) -> None:
        """Begin an attempt at a message; writes nothing yet."""
        self.claim = claim
        self.context = context
        self.state = claim.entry.state
        """The fold of the journal, kept current as lines are appended."""
        self.attempt = self.state.attempts + 1
        """The number of this attempt, from 1."""
        self._began = context.clock()
        self._believed = context.trusts_clock()
        self._report = Report(context.log, claim, self._began)
        self._was_overdue = self.state.overdue
        standings = self.state.by_address.items()
        self.doubted = {address: s.hop for address, s in standings if s.status is _UNCERTAIN}
        """By address, the hop that may have taken the recipient's copy in an earlier attempt."""
        self._waited = False
        """Whether the journal says that the message waited for its turn in this attempt."""
        self._bound = JournalBound(len(self.state.by_address))
        self._as_before: set[str] = set()
        """Recipients deferred for the same reason as before; they share the one line that `finish` writes."""
        self.handed_over: dict[str, float] = {}
        """When each recipient's final dot was about to be sent, in seconds since the epoch."""
        self.refused: list[Outcome] = []
        """The permanent refusals of this attempt."""
        self._promised: dict[str, int] = {}
        """Journal octets reserved for the outcome of each recipient whose final dot was announced."""

    @cached_property
    def _delay(self) -> float:
        """Seconds until the next attempt at what this one defers."""
        return self.context.backoff.delay(self.attempt, self.context.random)

    @property
    def due(self) -> tuple[Standing, ...]:
        """The recipients to be tried; empty when the message is held, waits, or is done."""
        return () if self.state.held else self.state.due(self._began, self.context.backoff.horizon)

    @property
    def untried(self) -> bool:
        """Whether some recipient is due, and no outcome is missing for one that was handed over."""
        return bool(self.due) and not self._uncertain(self.handed_over)

    def date(self) -> None:
        """Correct the time from which age counts, if the message came or was requeued by a wrong clock."""
        guard, accepted = self.context.guard, self.state.accepted
        if guard is None or accepted is None or not self._believed:
            return
        if accepted.next and self.state.scheduled is not None:
            return
        told = self.state.since
        since = guard.since(told, accepted.boot, accepted.uptime)
        if since != told and clock.rfc3339(told) != accepted.at:
            since = guard.since(told, "", 0.0)  # The time is not that of the boot clock in `accepted`.
        if since != told:
            reason = f"the clock was wrong when it was queued; its age counts from {clock.rfc3339(since)}"
            self._append([Event(at=self._at(), event=Kind.DATED, since=clock.rfc3339(since), reason=reason)])

    def hold(self, reason: str) -> None:
        """Record that the message is to be held."""
        self._append([Event(at=self._at(), event=Kind.HELD, reason=reason)])
        self.context.log.message("held", id=self.claim.id, to=tuple(self.state.by_address), reason=reason)

    def hold_doubt(self, among: Collection[str]) -> bool:
        """Hold the message if one of these recipients is uncertain and policy or route demand it.

        Returns whether the message is held.
        """
        if self.state.held:
            return True
        doubtful = self._uncertain(among)
        if doubtful and not self.context.hold_uncertain:
            doubtful = [standing for standing in doubtful if self._is_second_doubt(standing)]
        if doubtful:
            self.hold(lost_reply(doubtful[0].hop, again=not self.context.hold_uncertain))
        return bool(self.state.held)

    def _is_second_doubt(self, standing: Standing) -> bool:
        """Tell whether the route holds a recipient that is uncertain twice; see `plan.held_in_doubt`."""
        if not standing.doubted_twice:
            return False
        route = self.context.routes.leading_to(standing.hop)
        return route is not None and route.holds_second_doubt

    @property
    def is_late(self) -> bool:
        """Whether the time has passed after which the sender wants no delivery (Latest-Delivery-Time)."""
        return self._believed and self.state.expires is not None and self._began > self.state.expires

    def expire(self) -> None:
        """Give up on the recipients that are still open, without an attempt."""
        late = [Outcome(s.address, Status.DEFERRED, s.hop, s.reply, Scope.MESSAGE) for s in self.state.open]
        self.outcomes(late, resting_until=self._began)

    def fail_internally(self, reason: str, among: Collection[str] | None = None) -> None:
        """Record an internal error: defer every due recipient, or those of `among`."""
        self.abandon(reason, among)
        due = [s.address for s in self.due if among is None or s.address in among]
        self.outcomes([Outcome(address, Status.DEFERRED, "local", reason, Scope.LOCAL) for address in due])

    def abandon(self, reason: str, among: Collection[str] | None = None) -> None:
        """Record an interruption: recipients that may have been sent (or those of `among`) are uncertain."""
        handed_over = self.handed_over if among is None else self.handed_over.keys() & set(among)
        doubtful = self._uncertain(handed_over)
        self.outcomes([Outcome(s.address, Status.UNCERTAIN, s.hop, reason, Scope.HOST) for s in doubtful])
        self.hold_doubt(handed_over)

    def report_again(self) -> None:
        """Log the outcomes that a dead runner may not have logged."""
        self._report.again(self.state)

    def commit(self, recipients: Sequence[Recipient], hop: str) -> None:
        """Prepare for the final dot: reserve room for the outcome, and record that it is about to be sent."""
        lease = self.claim.locked.spool.lease
        if lease:
            lease.check()
        to = tuple(map(_address, recipients))
        now = self.context.clock()
        event = Event(at=clock.rfc3339(now), event=_COMMITTING, to=to, hop=hop, attempt=self.attempt)
        line = journal.encode(event)
        promised = room_for_outcome(recipients, hop, self.doubted)
        # An earlier exchanger's reservation may remain, for recipients that are uncertain at another hop.
        self.claim.locked.give_back(self._give_back(to))
        self.claim.locked.reserve(len(line) + sum(promised.values()))
        self._promised |= promised
        self._append([event], line, of_promise=len(line))
        self.handed_over.update(dict.fromkeys(to, now))
        if self.context.hold_uncertain:
            # After a power cut only this policy needs the line; under `retry` it would change nothing.
            self.claim.locked.sync()
        if lease:
            lease.check()  # A filesystem over a network may have kept the write waiting for minutes.

    def throttled(self, hop: str, seconds: float, per_minute: int) -> None:
        """Record that the message waits for its turn at a hop because of `ratePerHop`; see `waits`."""
        self.waits(hop, seconds, f"at most {per_minute} a minute there (ratePerHop)")

    def waits(self, hop: str, seconds: float, reason: str) -> None:
        """Record, once per attempt, that the message waits for some seconds while it stays claimed."""
        if not self._waited:
            self._waited = True
            turn = clock.rfc3339(self.context.clock() + seconds)
            event = Event(
                at=self._at(),
                event=Kind.THROTTLED,
                hop=hop,
                attempt=self.attempt,
                next=turn,
                reason=reason,
            )
            self._append([event])

    def go_on(self, hop: str, text: str, scope: Scope, recipients: Sequence[Recipient]) -> None:
        """Record that a route goes on to another of its hops.

        Recipients that were uncertain before are left out, so that they stay so (`fold.advance`).
        """
        sure = [recipient for recipient in recipients if recipient.address not in self.doubted]
        if sure:
            self.trouble(hop, text, scope, sure)

    def trouble(self, hop: str, text: str, scope: Scope, recipients: Sequence[Recipient]) -> None:
        """Record that a hop failed for some recipients, and that another one is tried for them."""
        to = tuple(recipient.address for recipient in recipients)
        number, whose = self.attempt, scope.value
        event = Event(
            at=self._at(),
            event=Kind.TROUBLE,
            to=to,
            hop=hop,
            reply=self._bound.cut(text),
            scope=whose,
            attempt=number,
        )
        left_out = self._bound.leaves_out_trouble(self.state.by_address, to, self._length)
        self._append([] if left_out else [event], of_promise=self._give_back(to))
        self.context.log.attempt(id=self.claim.id, to=to, relay=hop, reply=text, attempt=number)

    def outcomes(
        self, outcomes: Sequence[Outcome], *, resting_until: float | None = None, gives_up: bool = True
    ) -> None:
        """Write outcomes to the journal and the ledger, one line for each group of equal ones.

        Args:
            outcomes: the outcomes, one for each recipient.
            resting_until: set if no hop was tried: when one may be, in seconds since the epoch. Recipients
                wait until then, within the limits of the schedule, and no attempt is counted.
            gives_up: False if the recipients wait for the operator, however long that takes.
        """
        if not outcomes:
            return
        # Counted from now, not from the start: a slow attempt must not be due again as soon as it ends.
        now = self.context.clock()
        number = self.attempt if resting_until is None else self.state.attempts
        if self.doubted:
            outcomes = [self._still_in_doubt(outcome) for outcome in outcomes]
        following, overdue = "", False
        if again := not TRIED_AGAIN.isdisjoint(map(_status, outcomes)):
            if gives_up:
                outcomes = [self._aged(one) if one.status in TRIED_AGAIN else one for one in outcomes]
            overdue, delay = self._is_overdue(), self._delay
            if resting_until is not None:
                delay = self.context.backoff.within(resting_until - now, self.context.random)
            following = self._following(now + delay)
        for some in self._promised_first(outcomes):
            fresh = some
            if again and resting_until is None:
                fresh = [outcome for outcome in some if not self._repeats(outcome)]
            lines = grouped(fresh)
            self._append(
                [
                    self._bound.event(outcome, to, now, number, following, overdue=overdue)
                    for outcome, to in lines.items()
                ],
                of_promise=self._give_back(map(_address, some)),
            )
            groups = lines if len(fresh) == len(some) else grouped(some)
            self._report.outcomes(groups, self.state, number, following, self.handed_over)
            if _BOUNCED in map(_status, some):
                self.refused += [outcome for outcome in some if outcome.status is _BOUNCED]

    def _following(self, planned: float) -> str:
        """Return the time of the next attempt as text, but no later than the Latest-Delivery-Time.

        At that time the message is given up, instead of after it.
        """
        return clock.rfc3339(min(planned, self.state.expires or planned))

    def _promised_first(self, outcomes: Sequence[Outcome]) -> Sequence[Sequence[Outcome]]:
        """Split outcomes: first those with reserved journal space, then the others, whose write may fail."""
        if len(outcomes) == 1 or not self._promised:
            return [outcomes]
        parts: tuple[list[Outcome], list[Outcome]] = [], []
        for outcome in outcomes:
            parts[outcome.address not in self._promised].append(outcome)
        return [part for part in parts if part]

    def _give_back(self, addresses: Iterable[str]) -> int:
        """End the reservations of these recipients; return their octets, for the next line to use."""
        return sum(map(self._promised.pop, addresses, repeat(0))) if self._promised else 0

    def end_attempt(self) -> None:
        """End the attempt: write one line for all recipients that were deferred as before.

        After a crash before this line they are still due.
        """
        if not self._as_before:
            return
        now, meant = self.context.clock(), self._as_before
        self._as_before = set()
        earlier = {
            standing.address
            for standing in self.state.by_address.values()
            if standing.status is Status.DEFERRED and standing.attempt < self.attempt
        }
        event = Event(
            at=clock.rfc3339(now),
            event=Kind.AS_BEFORE,
            to=() if meant == earlier else tuple(a for a in self.state.by_address if a in meant),
            attempt=self.attempt,
            next=self._following(now + self._delay),
            reason=OVERDUE if self._is_overdue() else "",
        )
        self._append([event])

    def _repeats(self, outcome: Outcome) -> bool:
        """Tell whether an outcome says nothing new; if so, leave it to the line that `finish` writes."""
        known = self.state.by_address[outcome.address]
        if not self._bound.as_before(outcome, known, self._length):
            return False
        self._as_before.add(outcome.address)
        return True

    @property
    def _length(self) -> int:
        """The length of the journal, in octets."""
        entry = self.claim.entry
        return self.claim.locked.size - entry.offset - entry.length

    def _uncertain(self, among: Collection[str]) -> list[Standing]:
        return [
            standing
            for address, standing in self.state.by_address.items()
            if standing.status is _UNCERTAIN and not standing.allowed and address in among
        ]

    def _still_in_doubt(self, outcome: Outcome) -> Outcome:
        """Keep a recipient uncertain until the same hop accepts or refuses it.

        Hop trouble and DNS errors do not settle the doubt. If it were dropped, the message could go to
        another hop although the first may have delivered it.
        """
        hop = self.doubted.get(outcome.address)
        if hop is None or (outcome.status is not Status.DEFERRED and was_asked(outcome.hop)):
            return outcome
        reply = outcome.reply if was_asked(outcome.hop) else f"{outcome.hop}: {outcome.reply}"
        return replace(outcome, status=Status.UNCERTAIN, hop=hop, reply=reply)

    def _aged(self, outcome: Outcome) -> Outcome:
        """Expire an outcome that would be retried for too long.

        Age counts only if two attempts in a row found it exceeded, so one wrong reading of the clock cannot
        expire a message.
        """
        if self.is_late:
            last = f"; last: {outcome.reply}" if outcome.reply else ""
            return replace(outcome, status=Status.EXPIRED, reply=f"{LATE}{last}")
        if self._was_overdue and self._is_overdue():
            return replace(outcome, status=Status.EXPIRED)
        if self._bound.is_spent(self._length):
            return replace(outcome, status=Status.EXPIRED, reply=f"{SPENT}; last: {outcome.reply}")
        return outcome

    def _is_overdue(self) -> bool:
        return self._believed and self.context.backoff.overdue(self.state.since, self._began)

    def _append(self, events: Sequence[Event], lines: bytes = b"", *, of_promise: int = 0) -> None:
        """Append events; args: lines: theirs, if they are encoded already."""
        held = self.claim.locked
        if not events:
            held.give_back(of_promise)
            return
        held.append_lines(lines or journal.encode(*events), of_promise=of_promise)
        self.state = advance(self.state, events)
        if self.context.journals and not _DURABLE.isdisjoint(map(_kind, events)):
            self.context.journals.changed(held)

    def _at(self) -> str:
        return clock.rfc3339(self.context.clock())
