"""One attempt at one message: walk the routes, and record each outcome the moment it is known.

The journal comes first, the ledger second, the move (see `settle`) last; so at any instant the file itself
says how its recipients stand, and a runner that takes over from a dead one decides from that alone.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status, was_asked
from mailer.maillog.events import MailLog
from mailer.send.backoff import Backoff
from mailer.send.batches import Batches
from mailer.send.dkim.signer import NoKey, Signer, SigningError
from mailer.send.leap import Leap
from mailer.send.outgoing import Outgoing
from mailer.send.report import Report
from mailer.send.routes.route import Route
from mailer.send.routes.turns import Turns
from mailer.send.together import together
from mailer.send.traffic import Traffic
from mailer.send.trouble import Action, Hardness, HopTrouble, Resting, decide
from mailer.spool import journal
from mailer.spool.claim import Claim
from mailer.spool.journal import OVERDUE, Event, Kind, Standing

_KINDS = {
    Status.SENT: Kind.SENT,
    Status.DEFERRED: Kind.DEFERRED,
    Status.BOUNCED: Kind.BOUNCED,
    Status.EXPIRED: Kind.EXPIRED,
    Status.UNCERTAIN: Kind.UNCERTAIN,
}

_TRIED_AGAIN = {Status.DEFERRED, Status.UNCERTAIN}

_ROOM_FOR_LINE = 6 * 1024
"""Journal bytes kept free before the dot, beside the addresses: an outcome with the longest reply."""

_DESTINATIONS = 20
"""Destinations of one message that are tried at the same time."""

_SIGNED_HERE = 256 * 1024
"""Octets of a message that is signed without a thread: about a millisecond."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run goes by."""

    routes: Turns
    backoff: Backoff
    hold_uncertain: bool
    log: MailLog
    clock: Clock
    random: Callable[[], float]
    signer: Signer | None = None
    """Signs what leaves this host; None: nothing is to be signed."""
    archive_max_age: float = math.inf
    """Seconds that `sent/` keeps a copy."""
    leap: Leap = field(default_factory=lambda: Leap(None))
    """Whether the clock is one to delete by."""
    traffic: Traffic | None = None
    """How the direct route's destinations do; None: it is off."""


class Attempt:
    """Tries a claimed message's due recipients once."""

    def __init__(self, claim: Claim, policy: Policy, pause: Callable[[float], Awaitable[None]]) -> None:
        """Prepare; pause: sleeps for so many seconds between two batches."""
        self._claim = claim
        self._pause = pause
        self._outgoing = Outgoing(claim)
        self._policy = policy
        self.state = claim.entry.state
        """The fold of the journal, kept current as lines are appended."""
        self._number = self.state.attempts + 1
        self._now = policy.clock()
        self._report = Report(policy.log, claim, self._now)
        self._delay = policy.backoff.delay(self._number, policy.random)
        self._was_overdue = self.state.overdue
        self._doubted = {s.address: s.hop for s in self.state.open if s.status is Status.UNCERTAIN}
        """The hop that may have taken a recipient's copy in an earlier attempt."""
        self._room = asyncio.Semaphore(_DESTINATIONS)
        self._committed: dict[str, float] = {}
        """When each recipient's final dot was about to be sent."""
        self._tried: set[str] = set()
        """The recipients for whom some hop was tried and gave trouble, not only left alone."""
        self._rest = math.inf
        """When the first of the hops that are left alone may be tried again."""

    @property
    def due(self) -> tuple[Standing, ...]:
        """The recipients to be tried; none when the message is held, or waits, or is done."""
        return () if self.state.held else self.state.due(self._now, self._policy.backoff.horizon)

    @property
    def untried(self) -> bool:
        """Some recipient is still to be tried, and none was handed over without its outcome on record."""
        return bool(self.due) and not self._uncertain(self._committed)

    async def run(self) -> None:
        """Try every due recipient; afterwards `state` says how each stands.

        Raises:
            OSError: the journal cannot be written: nothing may be sent that cannot be recorded. What was
                recorded stands.
        """
        if self._hold_doubt(self._doubted):
            return  # Its runner died in doubt, or the power went.
        try:
            await self._sign()
        except NoKey as error:
            if not self.state.about:
                self.fail_internally(error.reason)
                return
            # A notification of ours, from MAILER-DAEMON at this host, which few have a key for. It would wait
            # for one until it is too old to be of use.
        except SigningError as error:
            self.fail_internally(error.reason)  # Never unsigned by accident.
            return
        await together([self._walk(*part) for part in self._plan(self.due)])
        self._hold_doubt(self._committed)

    async def _sign(self) -> None:
        if (signer := self._policy.signer) is None:
            return
        if self._outgoing.size <= _SIGNED_HERE:
            signatures = signer.sign(self._outgoing)
        else:
            signatures = await asyncio.to_thread(signer.sign, self._outgoing)
        self._outgoing = Outgoing(self._claim, signatures)

    def hold(self, reason: str) -> None:
        """Record that the message is to be held; raises OSError."""
        self._append([Event(at=self._at(), event=Kind.HELD, reason=reason)])
        self._policy.log.message("held", id=self._claim.id, reason=reason)

    def fail_internally(self, reason: str) -> None:
        """Record that we failed, not the mail: every due recipient is tried again later. Raises OSError."""
        self.abandon(reason)
        self._record([Outcome(s.address, Status.DEFERRED, "local", reason, Scope.LOCAL) for s in self.due])

    def abandon(self, reason: str) -> None:
        """Record what an interruption left open: what may have been sent is uncertain. Raises OSError."""
        doubtful = self._uncertain(self._committed)
        self._record([Outcome(s.address, Status.UNCERTAIN, s.hop, reason, Scope.HOST) for s in doubtful])
        self._hold_doubt(self._committed)

    def _uncertain(self, among: Collection[str]) -> list[Standing]:
        doubtful = [s for s in self.state.open if s.status is Status.UNCERTAIN and not s.allowed]
        return [standing for standing in doubtful if standing.address in among]

    def _hold_doubt(self, among: Collection[str]) -> bool:
        """Under the policy `hold`, hold the message if any of these is uncertain; tell whether it is held."""
        if not self._policy.hold_uncertain or self.state.held:
            return bool(self.state.held)
        if doubtful := self._uncertain(among):
            self.hold(f"the final reply of {doubtful[0].hop} was lost: delivered or not, nobody knows")
        return bool(self.state.held)

    def report_again(self) -> None:
        """Tell the ledger what a dead runner may not have told."""
        self._report.again(self.state)

    def _plan(self, due: Sequence[Standing]) -> list[tuple[tuple[Route, ...], list[Recipient]]]:
        """Give the recipients that are uncertain at a hop that hop alone, and the others every route.

        A hop that may have taken a message is the only one that could recognise it the second time. The
        direct route has many hops: who is in doubt goes apart from those who are not, or are at another one.
        """
        every = self._policy.routes.next()
        if not self._doubted:
            return [(every, [standing.recipient for standing in due])]
        plan: dict[tuple[tuple[Route, ...], str], list[Recipient]] = {}
        for standing in due:
            routes, hop = every, ""
            if standing.status is Status.UNCERTAIN:
                hop = standing.hop
                # From the end: the direct route, which comes first, knows a hop by its port alone.
                known = next((route for route in reversed(every) if route.leads_to(standing.hop)), None)
                routes = (known,) if known else every
            plan.setdefault((routes, hop), []).append(standing.recipient)
        return [(routes, recipients) for (routes, _), recipients in plan.items()]

    async def _walk(self, routes: Sequence[Route], recipients: Sequence[Recipient]) -> None:
        for position, route in enumerate(routes, start=1):
            recipients = await self._try_groups(
                route, route.groups(recipients), hops_left=position < len(routes)
            )
            if not recipients:
                return

    async def _try_groups(
        self, route: Route, groups: Sequence[Sequence[Recipient]], *, hops_left: bool
    ) -> list[Recipient]:
        """Send to all destinations, some at a time: a slow one does not hold up the others."""

        async def one(group: Sequence[Recipient]) -> list[Recipient]:
            async with self._room:
                return await self._try(route, group, hops_left=hops_left)

        results = await together([one(group) for group in groups])
        return [recipient for passed_on in results for recipient in passed_on]

    async def _try(
        self, route: Route, recipients: Sequence[Recipient], *, hops_left: bool
    ) -> list[Recipient]:
        """Send to one destination's recipients, in batches; return those that the next route shall have."""
        passed_on: list[Recipient] = []
        patient = self._number < route.attempts
        batches = Batches(recipients, route.batch_size)
        while batch := batches.next():
            if batches.pause:
                await self._pause(route.batch_delay)
            try:
                outcomes = await route.deliver(self._outgoing, batch, self._commit, self._go_on)
            except HopTrouble as trouble:
                # What stops this batch would stop the ones after it too.
                left = [*batch, *batches.left]
                on = hops_left and not (patient and not isinstance(trouble, Resting))
                return [*passed_on, *self._after_trouble(trouble, left, hops_left=on)]
            passed_on += self._judge(*batches.settle(batch, outcomes), hops_left=hops_left, patient=patient)
        return passed_on

    def _after_trouble(
        self, trouble: HopTrouble, recipients: Sequence[Recipient], *, hops_left: bool
    ) -> Sequence[Recipient]:
        """Record that a hop was no use; return the recipients if another hop is to be tried."""
        if isinstance(trouble, Resting):
            self._rest = min(trouble.until, self._rest)
        else:
            self._tried.update(recipient.address for recipient in recipients)
        if decide(trouble.scope, trouble.hardness, hops_left=hops_left) is Action.NEXT_HOP:
            self._note_trouble(trouble.hop, trouble.text, trouble.scope, recipients)
            return recipients
        deferred = [
            Outcome(r.address, Status.DEFERRED, trouble.hop, trouble.text, trouble.scope) for r in recipients
        ]
        self._record([outcome for outcome in deferred if outcome.address in self._tried])
        self._record([outcome for outcome in deferred if outcome.address not in self._tried], rest=True)
        return []

    def _judge(
        self, batch: Sequence[Recipient], outcomes: Sequence[Outcome], *, hops_left: bool, patient: bool
    ) -> list[Recipient]:
        """Record what a transaction decided; return the recipients that another hop may still take."""
        passed_on: dict[Outcome, list[Recipient]] = {}
        decided: list[Outcome] = []
        self._tried.update(recipient.address for recipient in batch)
        for recipient, outcome in zip(batch, outcomes, strict=True):
            # What may pass is given the route's attempts; a refusal is not.
            on = hops_left and not (patient and outcome.status is Status.DEFERRED)
            if _goes_on(outcome, hops_left=on):
                passed_on.setdefault(replace(outcome, address=""), []).append(recipient)
            else:
                decided.append(outcome)
        for outcome, recipients in passed_on.items():
            self._note_trouble(outcome.hop, outcome.reply, outcome.scope, recipients)
        self._record(decided)
        return [recipient for recipients in passed_on.values() for recipient in recipients]

    def _commit(self, recipients: Sequence[Recipient], hop: str) -> None:
        """Before the final dot: make sure that the outcome can be written, and say that it is being sent."""
        to = tuple(recipient.address for recipient in recipients)
        self._claim.held.reserve(_ROOM_FOR_LINE + sum(2 * len(address) + 16 for address in to))
        now = self._policy.clock()
        event = Event(at=clock.rfc3339(now), event=Kind.COMMITTING, to=to, hop=hop, attempt=self._number)
        self._append([event])
        self._committed.update(dict.fromkeys(to, now))
        if self._policy.hold_uncertain:
            # Only this policy needs the line after a power cut; under `retry` it would change nothing.
            self._claim.held.sync()

    def _go_on(self, hop: str, text: str, scope: Scope, recipients: Sequence[Recipient]) -> None:
        """Record that a route tries another hop of its own; what was in doubt before stays so (`advance`)."""
        sure = [recipient for recipient in recipients if recipient.address not in self._doubted]
        if sure:
            self._note_trouble(hop, text, scope, sure)

    def _note_trouble(self, hop: str, text: str, scope: Scope, recipients: Sequence[Recipient]) -> None:
        to = tuple(recipient.address for recipient in recipients)
        number, whose = self._number, scope.value
        event = Event(
            at=self._at(), event=Kind.TROUBLE, to=to, hop=hop, reply=text, scope=whose, attempt=number
        )
        self._append([event])
        self._policy.log.attempt(id=self._claim.id, to=to, relay=hop, reply=text, attempt=number)

    def _record(self, outcomes: Sequence[Outcome], *, rest: bool = False) -> None:
        """Write outcomes to the journal and the ledger, one line for those that are alike.

        Args:
            outcomes: which.
            rest: no hop was tried. They wait until one may be, and that was no attempt.
        """
        if not outcomes:
            return
        # From now, not from the attempt's start: a slow one must not be due again the moment it ends.
        now = self._policy.clock()
        number, delay = (self.state.attempts, self._until(now)) if rest else (self._number, self._delay)
        following = clock.rfc3339(now + delay)
        groups = _alike([self._aged(self._still_in_doubt(outcome)) for outcome in outcomes])
        self._append([self._event(outcome, to, number, now, following) for outcome, to in groups.items()])
        self._report.outcomes(groups, self.state, number, following, self._committed)

    def _until(self, now: float) -> float:
        """Return the seconds until a hop that is left alone may be tried again, as the schedule allows."""
        return self._policy.backoff.within(self._rest - now, self._policy.random)

    def _still_in_doubt(self, outcome: Outcome) -> Outcome:
        """Keep a doubt of an earlier attempt until its hop says yes or no: trouble and DNS answer nothing.

        Forgotten, it would let the message go to another hop while the first may have delivered it.
        """
        hop = self._doubted.get(outcome.address)
        if hop is None or (outcome.status is not Status.DEFERRED and was_asked(outcome.hop)):
            return outcome
        reply = outcome.reply if was_asked(outcome.hop) else f"{outcome.hop}: {outcome.reply}"
        return replace(outcome, status=Status.UNCERTAIN, hop=hop, reply=reply)

    def _aged(self, outcome: Outcome) -> Outcome:
        """Give up on what has been tried for too long, but never on one reading of the clock."""
        if outcome.status in _TRIED_AGAIN and self._was_overdue and self._is_overdue():
            return replace(outcome, status=Status.EXPIRED)
        return outcome

    def _is_overdue(self) -> bool:
        return self._policy.backoff.overdue(self.state.since, self._now)

    def _event(self, outcome: Outcome, to: list[str], number: int, now: float, following: str) -> Event:
        again = outcome.status in _TRIED_AGAIN
        return Event(
            at=clock.rfc3339(now),
            event=_KINDS[outcome.status],
            to=tuple(to),
            hop=outcome.hop,
            reply=outcome.reply,
            scope="" if outcome.status is Status.SENT else outcome.scope.value,
            attempt=number,
            next=following if again else "",
            reason=OVERDUE if again and self._is_overdue() else "",
            tls=outcome.tls,
            action=outcome.action,
        )

    def _append(self, events: Sequence[Event]) -> None:
        if events:
            self._claim.held.append(*events)
            self.state = journal.advance(self.state, events)

    def _at(self) -> str:
        return clock.rfc3339(self._policy.clock())


def _alike(outcomes: Sequence[Outcome]) -> dict[Outcome, list[str]]:
    """Gather the recipients by what they have in common: an outcome, whose own address says nothing.

    Sent first: should the disk be full after all, the line that prevents a duplicate is written.
    """
    if len(outcomes) == 1:
        return {outcomes[0]: [outcomes[0].address]}  # As of nearly every message.
    groups: dict[Outcome, list[str]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.status is not Status.SENT):
        groups.setdefault(replace(outcome, address=""), []).append(outcome.address)
    return groups


def _goes_on(outcome: Outcome, *, hops_left: bool) -> bool:
    if outcome.status is Status.SENT:
        return False
    return decide(outcome.scope, Hardness.of(outcome), hops_left=hops_left) is Action.NEXT_HOP
